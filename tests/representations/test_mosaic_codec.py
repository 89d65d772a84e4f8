"""Stage 1 of mosaics: the encoder, anchors, decoder paths, saving, and trained weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from support.builders import experiment

from z1g.config.tree import Experiment
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, view_frame
from z1g.geometry.mosaic import untile
from z1g.networks.weights import Model
from z1g.networks.weights import random_networks as scratch
from z1g.networks.weights.zero123plus import Zero123Plus
from z1g.representations.splat_features import splat_rays


def config(**changes: Any) -> Experiment:
    return experiment(Path("unused"), **changes)


def mosaics(n: int = 2, size: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, 3 * size, 2 * size, generator=torch.Generator().manual_seed(4))


def test_codes_of_mosaics_follow_the_published_path() -> None:
    codec = config().new_codec()
    mosaic, noise = mosaics(), torch.randn(2, 4, 24, 16, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        distribution = codec.vae.encode((2 * mosaic - 1) * 0.5 / 0.8).latent_dist
        for given, latent in ((None, distribution.mean), (noise, distribution.mean + distribution.std * noise)):
            expected = (latent * 0.18215 - 0.22) * 0.75
            torch.testing.assert_close(codec.encode(mosaic, given), expected)


def test_condition_latent_has_no_scaling_factor() -> None:
    codec = config().new_codec()
    image = mosaics()[:, :, :16, :16]
    with torch.no_grad():
        expected = codec.vae.encode(2 * image - 1).latent_dist.mean
        torch.testing.assert_close(codec.condition_latent(image), expected)


def test_code_shapes_agree() -> None:
    codec, mosaic = config().new_codec(), mosaics()
    with torch.no_grad():
        shape = tuple(codec.encode(mosaic).shape[1:])
    options = config()
    assert shape == codec.code_shape == options.representation.code_shape(options.model, 8) == (4, 24, 16)


def test_decoder_without_resize_is_the_vaes() -> None:
    """The color channels before activation are the VAE decoder's image, times 1.6."""
    codec = config(splat={"size": 16}).new_codec()
    code = torch.randn(1, 4, 24, 16, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        expected = 1.6 * codec.vae.decode((code / 0.75 + 0.22) / 0.18215).sample
        torch.testing.assert_close(codec.decoder.raw_mosaic(code)[:, 11:], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [8, 12, 16, 20])
def test_last_layer_resizes_before_the_last_norm(size: int) -> None:
    codec = config(splat={"size": size}).new_codec()
    seen: list[torch.Size] = []
    codec.decoder.decoder.conv_norm_out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-2:]))
    splats = codec.decoder(torch.randn(1, 4, 24, 16))
    assert splats.shape == (1, 6, 14, size, size)
    assert seen == [(3 * size, 2 * size)]


def test_resize_is_nearest() -> None:
    codec = config(splat={"size": 8}).new_codec()
    seen: dict[str, torch.Tensor] = {}
    last = codec.decoder.decoder
    last.up_blocks[-1].register_forward_hook(lambda _, __, out: seen.update(full=out))
    last.conv_norm_out.register_forward_pre_hook(lambda _, inputs: seen.update(small=inputs[0]))
    codec.decoder(torch.randn(1, 4, 24, 16))
    torch.testing.assert_close(seen["small"], seen["full"][:, :, ::2, ::2])


def test_anchors_lie_on_their_rays_at_the_camera_distance() -> None:
    camera, size = CameraOptions(radius=1.3, fov_y_deg=40), 6
    rays = splat_rays(camera, size)
    points = untile(rays.anchor[None])[0].double().numpy()
    poses = camera.poses(123)
    c2w = view_frame(poses, camera.radius) @ poses
    focal = 0.5 * size / np.tan(np.radians(20))
    for i, view in enumerate(INPUT_VIEWS):
        local = np.linalg.inv(c2w[view]) @ np.concatenate([points[i].reshape(3, -1), np.ones((1, size * size))])
        np.testing.assert_allclose(local[2], 1.3, atol=1e-5)
        pixel = focal * local[:2] / local[2] + size / 2
        y, x = np.mgrid[:size, :size] + 0.5
        np.testing.assert_allclose(pixel, [x.ravel(), y.ravel()], atol=1e-4)
    assert rays.pixel == pytest.approx(1.3 * 2 * np.tan(np.radians(20)) / size)


def test_heads_are_seeded() -> None:
    first, second = config().new_codec(), config().new_codec()
    torch.testing.assert_close(first.decoder.geometry_out.weight, second.decoder.geometry_out.weight, atol=0, rtol=0)


@pytest.mark.parametrize("head", ["geometry", "random"])
def test_save_and_load(tmp_path: Path, head: str) -> None:
    options = config(representation={"decoder": {"head": head}})
    trained = options.new_codec()
    with torch.no_grad():
        for parameter in (*trained.decoder.parameters(), *trained.encoder.parameters()):
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    trained.save(tmp_path)
    loaded = options.load_codec(tmp_path)
    code = torch.randn(1, 4, 24, 16, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        torch.testing.assert_close(loaded.decoder(code), trained.decoder(code), atol=0, rtol=0)
        torch.testing.assert_close(loaded.encode(mosaics()), trained.encode(mosaics()), atol=1e-6, rtol=0)
    assert loaded.decoder.scale_bias.item() != -3
    assert not any(p.requires_grad for p in (*loaded.decoder.parameters(), *loaded.encoder.parameters()))


def test_saved_model_is_diffusers(tmp_path: Path) -> None:
    trained = config().new_codec()
    trained.save(tmp_path)
    vae = AutoencoderKL.from_pretrained(tmp_path / "vae", local_files_only=True)
    torch.testing.assert_close(vae.decoder.conv_out.weight, trained.decoder.decoder.conv_out.weight)
    with safe_open(tmp_path / "heads.safetensors", "pt") as file:
        assert sorted(file.keys()) == ["geometry_out.bias", "geometry_out.weight", "scale_bias"]


class Published(Zero123Plus):
    """A model that stage 1 treats as pretrained."""

    def vae_processor(self) -> None:
        """Without files of a processor."""

    def autoencoder(self) -> AutoencoderKL:
        return scratch.autoencoder(model().autoencoder_size, 0)

    @property
    def latent_factor(self) -> int:
        return 2


def model() -> Any:
    return config().model


def trained_parts(codes: dict[str, Any], pretrained: bool) -> set[str]:
    options = config(autodecoder={"codes": codes})
    if pretrained:
        published: Model = Published.model_construct(pretrained="published")
        options = options.model_copy(update={"model": published})
    codec = options.new_codec()
    parts = {
        "encoder": codec.encoder.encoder,
        "quant_conv": codec.encoder.quant_conv,
        "post_quant_conv": codec.decoder.post_quant_conv,
        "decoder": codec.decoder.decoder,
        "geometry_out": codec.decoder.geometry_out,
    }
    actual = {name: {p.requires_grad for p in part.parameters()} for name, part in parts.items()}
    assert all(len(flags) == 1 for flags in actual.values())
    return {name for name, flags in actual.items() if flags == {True}}


DECODER = {"decoder", "geometry_out"}
ENCODER = {"encoder", "quant_conv"}


@pytest.mark.parametrize(
    ("codes", "pretrained", "expected"),
    [
        ({"kind": "encoder"}, False, ENCODER | {"post_quant_conv"} | DECODER),
        ({"kind": "encoder"}, True, DECODER),
        ({"kind": "encoder", "train": True}, True, ENCODER | DECODER),
        ({"kind": "optimized"}, False, {"post_quant_conv"} | DECODER),
        ({"kind": "optimized"}, True, DECODER),
        ({"kind": "cache", "path": "codes.safetensors"}, False, {"post_quant_conv"} | DECODER),
        ({"kind": "cache", "path": "codes.safetensors"}, True, DECODER),
    ],
)
def test_what_is_trained(codes: dict[str, Any], pretrained: bool, expected: set[str]) -> None:
    assert trained_parts(codes, pretrained) == expected
