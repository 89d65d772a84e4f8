"""The mosaic's option `sees: splats`: features of fitted splats, their layer, saving, and a run through both stages."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.builders import experiment, fill, plan, stage_path
from torch import Tensor

from z1g.config.tree import Experiment
from z1g.core.errors import UserError
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, view_frame
from z1g.plan.folder import StageFolder
from z1g.representations.splat_features import splat_features, splat_rays
from z1g.stages import autodecoder, codes, infer, unet

SEES = {"representation": {"kind": "mosaic", "sees": "splats"}}


def config(**changes: Any) -> Experiment:
    return experiment(Path("unused"), **changes)


def random_splats(n: int, size: int, seed: int = 5) -> Tensor:
    """Activated splatter images [n,6,14,S,S]."""
    draws = np.random.default_rng(seed)
    splats = draws.uniform(-0.5, 0.5, (n, 6, 14, size, size))
    splats[:, :, 3] = draws.uniform(0, 1, (n, 6, size, size))
    splats[:, :, 4:7] = np.exp(draws.normal(-4, 1, (n, 6, 3, size, size)))
    splats[:, :, 7:11] /= np.linalg.norm(splats[:, :, 7:11], axis=2, keepdims=True)
    splats[:, :, 11:] += 0.5
    return torch.from_numpy(splats).float()


def test_features_of_a_pixel() -> None:
    """Against the definition in float64, pixel by pixel, with the ray of the pixel from the camera itself."""
    size, camera = 4, CameraOptions()
    splats = random_splats(1, size)
    features = splat_features(splats, splat_rays(camera, size), size).double().numpy()
    focal = size / 2 / math.tan(math.radians(camera.fov_y_deg) / 2)
    c2w = (view_frame(camera.poses(0), camera.radius) @ camera.poses(0))[list(INPUT_VIEWS)]
    for view, row, column in ((0, 0, 0), (2, 3, 1), (5, 2, 2)):
        position, opacity, scale, rotation, rgb = np.split(
            splats[0, view, :, row, column].double().numpy(), np.cumsum([3, 1, 3, 4])
        )
        ray = np.array([(column + 0.5 - size / 2) / focal, (row + 0.5 - size / 2) / focal, 1.0])
        anchor = c2w[view, :3, 3] + camera.radius * c2w[view, :3, :3] @ ray
        expected = np.concatenate(
            [
                position - anchor,
                [1.0],
                np.clip(np.log2(scale * focal / camera.radius) / 5, -1, 1),
                rotation * (-1 if rotation[0] < 0 else 1),
                2 * rgb - 1,
            ]
        )
        np.testing.assert_allclose(features[0, view, :, row, column], opacity * expected, atol=1e-5)


def test_what_cannot_be_seen_has_no_effect() -> None:
    splats = random_splats(1, 4)
    splats[:, :, 3] = 0
    assert not splat_features(splats, splat_rays(CameraOptions(), 4), 4).any()


def test_a_rotation_has_one_feature() -> None:
    splats = random_splats(1, 4)
    other = splats.clone()
    other[:, :, 7:11] *= -1
    rays = splat_rays(CameraOptions(), 4)
    torch.testing.assert_close(splat_features(splats, rays, 4), splat_features(other, rays, 4), atol=0, rtol=0)


@pytest.mark.parametrize("size", [4, 16])
def test_features_of_another_size(size: int) -> None:
    splats, rays = random_splats(2, 8), splat_rays(CameraOptions(), 8)
    full, resized = splat_features(splats, rays, 8).numpy(), splat_features(splats, rays, size).numpy()
    blocks = full.reshape(2, 6, 14, 4, 2, 4, 2).mean(axis=(4, 6)) if size == 4 else full.repeat(2, 3).repeat(2, 4)
    np.testing.assert_allclose(resized, blocks, atol=1e-6)


def images(n: int) -> tuple[Tensor, Tensor]:
    draws = np.random.default_rng(2)
    alpha = torch.from_numpy(draws.uniform(0, 1, (n, 6, 1, 16, 16))).float()
    return alpha * torch.from_numpy(draws.uniform(0, 1, (n, 6, 3, 16, 16))).float(), alpha


def test_starts_as_the_encoder_of_images() -> None:
    rgb, alpha = images(2)
    seeing, blind = config(**SEES).new_codec(), config().new_codec()
    with torch.no_grad():
        codes_seeing = seeing.encode(seeing.inputs(rgb, alpha, random_splats(2, 8)))
        torch.testing.assert_close(codes_seeing, blind.encode(blind.inputs(rgb, alpha, None)), atol=1e-6, rtol=1e-6)
    assert (seeing.uses_splats, blind.uses_splats) == (True, False)


def trained_codec() -> Any:
    codec = config(**SEES).new_codec()
    with torch.no_grad():
        codec.encoder.extra_in.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    return codec


def test_codes_depend_on_splats_and_conditions_do_not() -> None:
    """The first layer is that of an image with 17 channels, computed in float64."""
    codec, (rgb, alpha) = trained_codec(), images(1)
    inputs = codec.inputs(rgb, alpha, random_splats(1, 8))
    first = codec.vae.encoder.conv_in
    weight = torch.cat([first.weight, codec.encoder.extra_in.weight], dim=1).double()
    color = (2 * inputs[:, :3] - 1) * 0.5 / 0.8
    expected = torch.nn.functional.conv2d(
        torch.cat([color, inputs[:, 3:]], dim=1).double(), weight, first.bias.double(), padding=1
    )
    outputs = []
    codec.vae.encoder.down_blocks[0].register_forward_pre_hook(lambda _, args: outputs.append(args[0]))
    with torch.no_grad():
        codec.encode(inputs)
        torch.testing.assert_close(outputs[0].double(), expected, atol=1e-5, rtol=1e-5)
        before = codec.condition_latent(rgb[0])
        codec.encoder.extra_in.weight.zero_()
        torch.testing.assert_close(codec.condition_latent(rgb[0]), before, atol=0, rtol=0)


def test_inputs_are_computed_where_the_images_are() -> None:
    """Also if the networks are on another device; `meta` stands in for it."""
    codec, (rgb, alpha) = config(**SEES).new_codec(), images(1)
    expected = codec.inputs(rgb, alpha, random_splats(1, 8)).shape
    inputs = codec.inputs(rgb.to("meta"), alpha.to("meta"), random_splats(1, 8).to("meta"))
    assert (inputs.shape, inputs.device.type) == (expected, "meta")


def test_the_layer_is_saved(tmp_path: Path) -> None:
    codec, (rgb, alpha) = trained_codec(), images(1)
    codec.save(tmp_path)
    with safe_open(tmp_path / "heads.safetensors", "pt") as file:
        assert "extra_in.weight" in file.keys()  # noqa: SIM118
    loaded = config(**SEES).load_codec(tmp_path)
    inputs = codec.inputs(rgb, alpha, random_splats(1, 8))
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode(inputs), codec.encode(inputs), atol=1e-6, rtol=0)
    with pytest.raises(UserError, match=r"extra_in\.weight"):
        config().load_codec(tmp_path)


def test_needs_splats_and_a_trained_encoder() -> None:
    codec, (rgb, alpha) = trained_codec(), images(1)
    with pytest.raises(UserError, match="needs fitted splats"):
        codec.inputs(rgb, alpha, None)
    with pytest.raises(ValueError, match="sees 'splats' needs an encoder that is trained"):
        Experiment.model_validate({"model": {"kind": "zero123plus"}, **SEES})
    with pytest.raises(ValueError, match=r"unet\.variants: the encoder sees splats"):
        config(**SEES, unet={"variants": {"count": 2}})


def test_runs_through_both_stages(tmp_path: Path) -> None:
    """The layer is trained, and codes of held-out objects depend on their splats."""
    chain = plan(tmp_path, **SEES)
    fill(chain)
    for stage, module in (("autodecoder", autodecoder), ("codes", codes), ("unet", unet)):
        module.run(StageFolder.open(stage_path(chain, stage)), threads=1)
    infer.run(StageFolder.open(stage_path(chain, "infer")), chunk=0, threads=1)
    with safe_open(stage_path(chain, "unet") / "pipeline/heads.safetensors", "pt") as file:
        assert file.get_tensor("extra_in.weight").abs().max() > 0
