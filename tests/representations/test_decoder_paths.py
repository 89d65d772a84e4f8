"""From the latent grid to the splats' resolution: every path against a plain computation, and what each mode trains."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL
from support.builders import experiment
from torch import Tensor

from z1g.config.tree import Experiment
from z1g.networks.weights import random_networks as scratch
from z1g.networks.weights.zero123plus import Zero123Plus
from z1g.representations.mosaic import Mosaic
from z1g.representations.mosaic.codec import MosaicCodec
from z1g.representations.mosaic.path import DecoderPath
from z1g.representations.mosaic.path.downsampled import AveragePool, ConvAveragePool, DownsampleConv
from z1g.representations.mosaic.path.plain import Plain
from z1g.representations.mosaic.path.resized import InterpolateDownsample, InterpolateUpsample, LastLayer

INPUT = 16
FOUR_LEVELS = {"channels": [4, 4, 8, 8], "layers_per_block": 1, "norm_groups": 2}
CODE = (4, 3 * INPUT // 8, 2 * INPUT // 8)


def config(path: dict[str, Any], size: int = 8, **decoder: Any) -> Experiment:
    """Four levels as in Stable Diffusion's decoder, tiny; views of 16 pixels."""
    return experiment(
        Path("unused"),
        splat={"size": size},
        model={"autoencoder_size": FOUR_LEVELS},
        representation={"input_size": INPUT, "decoder": {"path": path, "head": "random", **decoder}},
    )


def codes(n: int = 1) -> Tensor:
    return torch.randn(n, *CODE, generator=torch.Generator().manual_seed(6))


def raw_by_hand(codec: MosaicCodec, code: Tensor, resize_block: int | None, mode: str, size: int) -> Tensor:
    """Raw channels by the decoder's own layers. Features are resized after `resize_block` and no longer upsampled."""
    vae, head = codec.vae, codec.decoder.geometry_out
    x = vae.decoder.mid_block(vae.decoder.conv_in(vae.post_quant_conv((code / 0.75 + 0.22) / 0.18215)))
    mosaic = (3 * size, 2 * size)
    for i, block in enumerate(vae.decoder.up_blocks):
        for layer in block.resnets:
            x = layer(x, None)
        if resize_block is None or i < resize_block:
            for layer in block.upsamplers or ():
                x = layer(x)
        elif i == resize_block:
            x = functional.interpolate(x, mosaic, mode="nearest") if mode == "nearest" else means(x, mosaic)
    x = functional.silu(vae.decoder.conv_norm_out(x))
    return torch.cat([head(x), vae.decoder.conv_out(x)], dim=1)


def means(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Means over areas, for integer ratios: a convolution with one box per channel."""
    ratio = x.shape[-1] // size[-1]
    box = torch.ones(x.shape[1], 1, ratio, ratio) / ratio**2
    return functional.conv2d(x, box, stride=ratio, groups=x.shape[1])


@pytest.mark.parametrize(
    ("path", "block", "mode", "size"),
    [
        ({"kind": "last_layer"}, 3, "nearest", 8),
        ({"kind": "last_layer"}, 3, "nearest", 12),
        ({"kind": "last_layer", "resampling": "average"}, 3, "average", 8),
        ({"kind": "interpolate_downsample"}, 2, "nearest", 6),
        ({"kind": "interpolate_downsample", "resampling": "average"}, 2, "average", 4),
        ({"kind": "interpolate_upsample"}, 1, "nearest", 6),
        ({"kind": "interpolate_upsample", "resampling": "average"}, 1, "average", 4),
        ({"kind": "plain"}, None, "", 8),
    ],
)
def test_features_are_resized_after_the_block_of_the_path(
    path: dict[str, Any], block: int | None, mode: str, size: int
) -> None:
    codec = config(path, size).new_codec()
    with torch.no_grad():
        expected = 1.6 * raw_by_hand(codec, codes(), block, mode, size)
        torch.testing.assert_close(codec.decoder.raw_mosaic(codes()), expected, atol=1e-5, rtol=1e-5)
        assert codec.decoder(codes()).shape == (1, 6, 14, *[INPUT if path["kind"] == "plain" else size] * 2)


@pytest.mark.parametrize("kind", ["average_pool", "conv_average_pool", "downsample_conv"])
def test_downsamplers_start_as_means_of_the_raw_channels(kind: str) -> None:
    codec = config({"kind": kind}).new_codec()
    with torch.no_grad():
        full = raw_by_hand(codec, codes(), None, "", INPUT)
        torch.testing.assert_close(codec.decoder.raw_mosaic(codes()), 1.6 * means(full, (24, 16)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", [True, False])
def test_downsample_conv_adds_its_convolutions(activation: bool) -> None:
    codec = config({"kind": "downsample_conv", "width": 5, "activation": activation}).new_codec()
    first, _, last = codec.decoder.downsampler.change
    with torch.no_grad():
        last.weight.normal_(generator=torch.Generator().manual_seed(1))
        full = raw_by_hand(codec, codes(), None, "", INPUT)
        hidden = functional.conv2d(full, first.weight, first.bias, stride=2, padding=1)
        hidden = functional.silu(hidden) if activation else hidden
        added = functional.conv2d(hidden, last.weight, last.bias, padding=1)
        expected = 1.6 * (means(full, (24, 16)) + added)
        torch.testing.assert_close(codec.decoder.raw_mosaic(codes()), expected, atol=1e-4, rtol=1e-4)


ALL_PATHS: list[DecoderPath] = [
    Plain(), LastLayer(), LastLayer(resampling="average"), InterpolateDownsample(), InterpolateUpsample(),
    AveragePool(), ConvAveragePool(), DownsampleConv(),
]  # fmt: skip


@pytest.mark.parametrize("path", ALL_PATHS, ids=lambda path: f"{path.kind}-{getattr(path, 'resampling', '')}")
def test_every_trained_layer_gets_a_gradient(path: DecoderPath, tmp_path: Path) -> None:
    """DDP waits forever for trained layers that never run. All trained layers are saved and loaded."""
    options = config(path.model_dump())
    codec = options.new_codec()
    raw_mosaic = codec.decoder.raw_mosaic(codes())
    codec.decoder.activate(raw_mosaic).square().mean().backward()
    trained = {name: p for name, p in codec.decoder.named_parameters() if p.requires_grad}
    # A zero-initialized layer follows it, so its gradient is zero in the first step.
    late = ("downsampler.change.0",)
    assert all(p.grad is not None and (p.grad.any() or name.startswith(late)) for name, p in trained.items())
    with torch.no_grad():
        for p in trained.values():
            p.add_(0.01)
        changed = codec.decoder(codes())
        codec.save(tmp_path)
        torch.testing.assert_close(options.load_codec(tmp_path).decoder(codes()), changed, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("path", "sizes", "words"),
    [
        ({"kind": "plain"}, {"size": 32}, "'plain' decodes to 16 pixels per view.*below splat.size 32"),
        ({"kind": "average_pool"}, {"size": 32}, "'average_pool' reduces 16 .*at least 32 for splat.size 32"),
        ({"kind": "conv_average_pool"}, {"size": 12}, "'conv_average_pool' reduces 16 .*at least 24"),
        ({"kind": "downsample_conv"}, {"size": 12}, "'downsample_conv' reduces 16 .*at least 24"),
        (
            {"kind": "last_layer", "resampling": "average"},
            {"size": 20},
            "'last_layer' cannot average 16 pixels per view",
        ),
        ({"kind": "interpolate_upsample", "resampling": "average"}, {"size": 8}, ".* cannot average 4 pixels per view"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(path: dict[str, Any], sizes: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=rf"representation\.decoder\.path {words}"):
        config(path, **sizes)


def test_a_decoder_with_too_few_levels_is_refused() -> None:
    two = {"channels": [4, 4], "layers_per_block": 1, "norm_groups": 2}
    with pytest.raises(ValueError, match=r"'interpolate_upsample' needs a decoder of 3 levels at least, .* has 2"):
        experiment(
            Path("unused"),
            model={"autoencoder_size": two},
            representation={"decoder": {"path": {"kind": "interpolate_upsample"}}},
        )


def test_a_code_of_another_size_is_refused() -> None:
    codec = config({"kind": "plain"}).new_codec()
    with pytest.raises(ValueError, match="path 'plain' decodes to"):
        codec.decoder(torch.randn(1, 4, 3, 2))


# Modes


class Published(Zero123Plus):
    """A model that stage 1 treats as pretrained."""

    def vae_processor(self) -> None:
        """Without files of a processor."""

    def autoencoder(self) -> AutoencoderKL:
        return scratch.autoencoder(config({"kind": "last_layer"}).model.autoencoder_size, 0)  # type: ignore[attr-defined]


def fixed_rgb() -> Experiment:
    plain = config({"kind": "last_layer"}, head="geometry")
    decoder = plain.representation.decoder.model_copy(update={"mode": "fixed_rgb"})
    options = plain.representation.model_copy(update={"decoder": decoder})
    return plain.model_copy(
        update={"representation": options, "model": Published.model_construct(pretrained="published")}
    )  # fmt: skip


def test_fixed_rgb_trains_the_geometry_only() -> None:
    codec = fixed_rgb().new_codec()
    trained = {name for name, p in codec.decoder.named_parameters() if p.requires_grad}
    assert trained == {"geometry_out.weight", "geometry_out.bias", "scale_bias"}
    assert not any(p.requires_grad for p in codec.encoder.parameters())


def test_fixed_rgb_shows_the_vaes_own_image() -> None:
    """At the decoder's own resolution, where nothing is resized, colors are the image that the VAE decodes."""
    options = fixed_rgb()
    codec = options.model_copy(update={"splat": options.splat.model_copy(update={"size": INPUT})}).new_codec()
    with torch.no_grad():
        image = 1.6 * codec.vae.decode((codes() / 0.75 + 0.22) / 0.18215).sample
        colors = codec.decoder.activate(codec.decoder.raw_mosaic(codes()))[:, 11:]
        torch.testing.assert_close(colors, (image / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=0)
        codec.decoder.geometry_out.weight.add_(1)
        again = codec.decoder.activate(codec.decoder.raw_mosaic(codes()))[:, 11:]
        torch.testing.assert_close(again, colors, atol=0, rtol=0)


def test_fixed_rgb_needs_published_weights() -> None:
    with pytest.raises(ValueError, match=r"representation\.decoder\.mode 'fixed_rgb' needs a model with published"):
        config({"kind": "last_layer"}, mode="fixed_rgb")


def test_fixed_rgb_cannot_be_combined_with_layers_that_mix_channels() -> None:
    with pytest.raises(ValueError, match="cannot be combined with path 'downsample_conv'"):
        Experiment.model_validate(
            {
                "splat": {"size": 64},
                "representation": {
                    "kind": "mosaic",
                    "decoder": {"mode": "fixed_rgb", "path": {"kind": "downsample_conv"}},
                },
            }
        )


# Initialization of the head


@pytest.mark.parametrize("scale", ["biased_softplus", "biased_exp", "softplus"])
@pytest.mark.parametrize("size", [8, 16])
def test_the_geometry_head_starts_on_the_rays_half_a_pixel_wide(scale: str, size: int) -> None:
    options = config({"kind": "last_layer"}, size, head="geometry")
    update = {"scale": Mosaic.model_validate({"scale": {"kind": scale}}).scale}
    options = options.model_copy(update={"representation": options.representation.model_copy(update=update)})
    codec = options.new_codec()
    with torch.no_grad():
        splats = codec.decoder(codes())
    pixel = 1.5 * 2 * torch.tan(torch.deg2rad(torch.tensor(49.1 / 2))) / size
    torch.testing.assert_close(splats[:, :, 4:7], (0.5 * pixel).expand(1, 6, 3, size, size), atol=1e-6, rtol=1e-4)
    assert splats[0, :, 7:11, 0, 0].tolist() == [[1, 0, 0, 0]] * 6
    torch.testing.assert_close(splats[:, :, 3], torch.full((1, 6, size, size), 1 / (1 + math.exp(3.2))))
    anchor = codec.decoder.anchor.reshape(3, 3, size, 2, size).permute(1, 3, 0, 2, 4).reshape(6, 3, size, size)
    torch.testing.assert_close(splats[0, :, :3], anchor, atol=1e-6, rtol=0)


def test_the_random_head_is_a_fresh_convolution() -> None:
    codec = config({"kind": "last_layer"}).new_codec()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        fresh = torch.nn.Conv2d(4, 11, 3, padding=1)
    torch.testing.assert_close(codec.decoder.geometry_out.weight, fresh.weight, atol=0, rtol=0)
    assert not codec.decoder.anchor.any()
