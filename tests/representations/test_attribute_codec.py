"""Codes of attribute images: each view alone or as a sheet, as diffusers' VAE encodes and decodes it."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from support.diffusion import normal
from torch import Tensor, nn

from z1g.core.errors import UserError
from z1g.core.seeding import seeded
from z1g.geometry.mosaic import tile
from z1g.representations.attributes.codec import AttributeCodec, Encoding
from z1g.representations.attributes.mappings import Mappings

SIZE, VIEWS = 8, 6


def vae() -> AutoencoderKL:
    with seeded(4):
        return AutoencoderKL(
            block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, layers_per_block=1,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=2, norm_num_groups=4, scaling_factor=0.3,
        ).eval()  # fmt: skip


def codec(encoding: Encoding = "per_view", l1: float = 1.0, **mappings: Any) -> AttributeCodec:
    return AttributeCodec(vae(), Mappings.model_validate(mappings), encoding, SIZE, l1).eval()


def fitted(seed: int = 0) -> Tensor:
    """Splatter images [2,6,14,S,S]."""
    splats = torch.rand(2, VIEWS, 14, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    splats[:, :, :3] -= 0.5
    splats[:, :, 4:7] = 0.01 + 0.1 * splats[:, :, 4:7]
    splats[:, :, 7:11] = nn.functional.normalize(splats[:, :, 7:11] - 0.5, dim=2)
    return splats


@pytest.mark.parametrize("rotation", ["axis_angle", "none"])
@torch.no_grad()
def test_views_are_encoded_and_decoded_alone(rotation: str) -> None:
    ours, theirs = codec(rotation=rotation), vae()
    n = 4 if rotation == "none" else 5
    assert ours.code_shape == (n * VIEWS, 2, 4, 4)
    inputs = ours.inputs(torch.empty(0), torch.empty(0), fitted())
    code, images = ours.encode(inputs), ours.images(ours.encode(inputs))
    assert code.shape == (2, *ours.code_shape)
    for b in range(2):
        for a in range(n):
            for v in range(VIEWS):
                latent = 0.3 * theirs.encode(inputs[b, a, v][None]).latent_dist.mode()[0]
                torch.testing.assert_close(code[b, a * VIEWS + v], latent, atol=1e-5, rtol=0)
                image = theirs.decode(latent[None] / 0.3).sample[0]
                torch.testing.assert_close(images[b, a, v], image, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_sheet_has_the_six_views_of_an_attribute() -> None:
    ours, theirs = codec("sheet"), vae()
    inputs = ours.inputs(torch.empty(0), torch.empty(0), fitted())
    code = ours.encode(inputs)
    assert code.shape == (2, *codec().code_shape)
    images = ours.images(code)
    for a in range(5):
        sheet = theirs.encode(tile(inputs[:, a])).latent_dist.mode()
        for v in range(VIEWS):
            row, column = divmod(v, 2)
            part = 0.3 * sheet[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            torch.testing.assert_close(code[:, a * VIEWS + v], part, atol=1e-5, rtol=0)
        decoded = theirs.decode(sheet).sample
        torch.testing.assert_close(tile(images[:, a]), decoded, atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoding", ["per_view", "sheet"])
def test_a_latent_sees_its_view_only_unless_it_is_of_a_sheet(encoding: Encoding) -> None:
    ours = codec(encoding)
    inputs = ours.inputs(torch.empty(0), torch.empty(0), fitted()).requires_grad_()
    ours.encode(inputs)[1, 2 * VIEWS + 3].sum().backward()
    assert inputs.grad is not None
    seen = inputs.grad.flatten(3).abs().amax(dim=3) > 0
    expected = torch.zeros(2, 5, VIEWS, dtype=torch.bool)
    expected[1, 2, 3 if encoding == "per_view" else slice(None)] = True
    assert torch.equal(seen, expected)


def test_a_sample_is_of_the_posterior() -> None:
    ours = codec()
    mean, deviation = ours.posterior(ours.inputs(torch.empty(0), torch.empty(0), fitted()))
    noise = normal(*mean.shape)
    torch.testing.assert_close(ours.code(mean, deviation, noise), 0.3 * (mean + deviation * noise))
    torch.testing.assert_close(ours.code(mean, deviation, None), 0.3 * mean)


def test_errors_of_images_by_hand() -> None:
    ours, truth = codec(l1=3.0), fitted(1)
    code = 0.5 * normal(2, *ours.code_shape)
    splats, terms = ours.decode_compared(code, truth)
    torch.testing.assert_close(splats, ours.decode(code))
    images, expected = ours.images(code).detach().double().numpy(), ours.mappings.images(truth).double().numpy()
    for a, name in enumerate(ours.mappings.names):
        error = 3 / 5 * np.abs(images[:, a] - expected[:, a]).mean()
        assert terms[f"l1_{name}"].item() == pytest.approx(error, rel=1e-5)
    assert len(terms) == 5
    sum(terms.values(), torch.zeros(())).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ours.decoder.parameters())


@pytest.mark.parametrize(("l1", "truth"), [(0.0, fitted()), (1.0, None)])
def test_without_a_weight_or_fits_there_are_no_errors_of_images(l1: float, truth: Tensor | None) -> None:
    assert codec(l1=l1).decode_compared(normal(1, *codec().code_shape), truth)[1] == {}


def test_statistics_are_of_attributes_and_channels() -> None:
    codes = normal(5, 30, 2, 4, 4) * torch.arange(1, 6).repeat_interleave(VIEWS)[:, None, None, None]
    mean, deviation = codec().normalization(codes)
    assert mean.shape == deviation.shape == (30, 2, 1, 1)
    for k in range(30):
        first = k // VIEWS * VIEWS
        for channel in range(2):
            values = codes[:, first : first + VIEWS, channel].double().numpy()
            assert mean[k, channel].item() == pytest.approx(values.mean(), abs=1e-5)
            assert deviation[k, channel].item() == pytest.approx(values.std(ddof=1), rel=1e-4)


@torch.no_grad()
def test_the_condition_is_a_latent_of_the_same_size() -> None:
    ours, image = codec(), torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    expected = 0.3 * vae().encode(2 * image - 1).latent_dist.mode()
    torch.testing.assert_close(ours.condition_latent(image), expected, atol=1e-5, rtol=0)
    colors = torch.tensor([0.2, 0.5, 0.9])[:, None, None]
    large, small = (colors.expand(1, 3, side, side) for side in (4 * SIZE, SIZE))
    torch.testing.assert_close(ours.condition_latent(large), ours.condition_latent(small), atol=1e-5, rtol=0)
    zero = ours.zero_latent(32, torch.device("cpu"))
    assert zero.shape == (1, *ours.code_shape[1:])
    assert zero.abs().sum() == 0


def test_fits_are_needed() -> None:
    with pytest.raises(UserError, match="needs fitted splats"):
        codec().inputs(torch.empty(0), torch.empty(0), None)


def test_weights_in_bf16_decode_nearly_the_same() -> None:
    ours = codec()
    code = 0.5 * normal(1, *ours.code_shape)
    exact = ours.images(code).detach()
    ours.use_bf16_weights(True)
    with torch.autocast("cpu", torch.bfloat16):
        half = ours.images(code)
    assert half.dtype == torch.float32
    assert 0 < float((half - exact).detach().abs().max()) < 0.1
    half.sum().backward()
    assert all(p.dtype == torch.float32 and p.grad is not None for p in ours.decoder.parameters())
