"""From the decoder's raw channels to Gaussians: activations against formulas in numpy."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from z1g.geometry.mosaic import untile
from z1g.networks.weights import random_networks as scratch
from z1g.networks.weights.sizes import AutoencoderSize
from z1g.representations.mosaic.decoder import SplatterDecoder
from z1g.representations.mosaic.options import DecoderOptions
from z1g.representations.scale import ScaleActivation
from z1g.representations.scale.biased import BiasedExp, BiasedSoftplus
from z1g.representations.scale.softplus import Softplus
from z1g.representations.splat_features import SplatRays

Array = NDArray[np.float64]
SIZE = 4
PIXEL = 0.02


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softplus(x: Array) -> Array:
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def decoder(scale: ScaleActivation | None = None, **options: str) -> SplatterDecoder:
    vae = scratch.autoencoder(AutoencoderSize(channels=(4, 4), layers_per_block=1, norm_groups=2), seed=0)
    anchor = torch.linspace(-0.9, 0.9, 3 * 3 * SIZE * 2 * SIZE).reshape(3, 3 * SIZE, 2 * SIZE)
    return SplatterDecoder(vae, DecoderOptions(**options), scale or BiasedSoftplus(), SplatRays(anchor, PIXEL))


def raw_mosaic(spread: float = 2.0) -> torch.Tensor:
    return spread * torch.randn(2, 14, 3 * SIZE, 2 * SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("head", ["geometry", "random"])
def test_decoder_activations(head: str) -> None:
    net = decoder(head=head)
    raw = raw_mosaic()
    out = net.activate(raw).detach().numpy()
    x = raw.double().numpy()
    anchor = net.anchor.double().numpy() if head == "geometry" else 0.0
    np.testing.assert_allclose(out[:, 0:3], np.clip(x[:, 0:3] + anchor, -1, 1), atol=1e-6)
    np.testing.assert_allclose(out[:, 3:4], sigmoid(x[:, 3:4]), atol=1e-6)
    scale = np.clip(0.1 * softplus(x[:, 4:7] - 3), math.exp(-10), math.exp(-2))
    np.testing.assert_allclose(out[:, 4:7], scale, atol=1e-7)
    np.testing.assert_allclose(out[:, 7:11], x[:, 7:11] / np.linalg.norm(x[:, 7:11], axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(out[:, 11:14], 0.5 * np.tanh(x[:, 11:14]) + 0.5, atol=1e-6)
    assert np.ptp(np.linalg.norm(out[:, 7:11], axis=1)) < 1e-5


def test_rotation_over_rows_is_the_original_s() -> None:
    raw = raw_mosaic()
    out = decoder(rotation_norm="rows").activate(raw).detach().numpy()
    x = raw.double().numpy()[:, 7:11]
    # F.normalize over the rows of the mosaic: each channel of each column has norm 1.
    np.testing.assert_allclose(out[:, 7:11], x / np.linalg.norm(x, axis=2, keepdims=True), atol=1e-6)
    assert np.linalg.norm(out[:, 7:11], axis=1).mean() < 0.8


def test_activation_is_float32_whatever_comes_in() -> None:
    assert decoder().activate(raw_mosaic().bfloat16()).dtype == torch.float32


def test_all_14_channels_are_multiplied() -> None:
    net = decoder()
    code = torch.randn(1, 4, 3 * SIZE, 2 * SIZE, generator=torch.Generator().manual_seed(2))
    seen: dict[str, torch.Tensor] = {}
    net.decoder.conv_act.register_forward_hook(lambda _, __, out: seen.update(features=out))
    mosaic = net.raw_mosaic(code)
    raw = [head(seen["features"]) for head in (net.geometry_out, net.decoder.conv_out)]
    torch.testing.assert_close(mosaic, 1.6 * torch.cat(raw, dim=1))
    torch.testing.assert_close(net(code), untile(net.activate(mosaic)))


def test_geometry_head_starts_on_its_rays() -> None:
    net = decoder()
    with torch.no_grad():
        splats = net.activate(net.raw_mosaic(torch.randn(1, 4, 3 * SIZE, 2 * SIZE)))[0]
    torch.testing.assert_close(splats[0:3], net.anchor)
    torch.testing.assert_close(splats[7:11, 0, 0], torch.tensor([1.0, 0, 0, 0]))
    torch.testing.assert_close(splats[3], torch.full_like(splats[3], float(sigmoid(np.array(-3.2)))))
    torch.testing.assert_close(splats[4:7], torch.full_like(splats[4:7], PIXEL / 2))


RAW = np.array([-80.0, -20, -7, -3, -1, 0, 1, 3, 7, 20, 80])


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        (Softplus(), lambda x: 0.1 * softplus(x)),
        (BiasedSoftplus(), lambda x: 0.1 * softplus(x - 3)),
        (BiasedSoftplus(bias=-1.5), lambda x: 0.1 * softplus(x - 1.5)),
        (BiasedExp(), lambda x: np.exp(x - 5)),
    ],
)
def test_scale_activations(activation: ScaleActivation, formula: object) -> None:
    bias = torch.tensor(activation.initial_bias, dtype=torch.float64)
    out = activation.apply(torch.from_numpy(RAW), bias).numpy()
    expected = np.clip(formula(RAW), math.exp(-10), math.exp(-2))  # type: ignore[operator]
    np.testing.assert_allclose(out, expected, rtol=1e-9)
    assert out.min() == pytest.approx(math.exp(-10))
    assert out.max() == pytest.approx(math.exp(-2))


def test_clamps_are_options() -> None:
    out = Softplus(log_min=-4, log_max=-3).apply(torch.from_numpy(RAW), torch.tensor(0.0)).numpy()
    assert (out.min(), out.max()) == (pytest.approx(math.exp(-4)), pytest.approx(math.exp(-3)))
    with pytest.raises(ValueError, match="below log_max"):
        Softplus(log_min=-2, log_max=-2)


@pytest.mark.parametrize(
    ("scale", "learnable", "start"),
    [
        (BiasedSoftplus(), True, -3.0),
        (BiasedSoftplus(learn_bias=False), False, -3.0),
        (BiasedExp(), True, -5.0),
        (Softplus(), False, 0.0),
    ],
)
def test_scale_bias_learns_where_asked(scale: ScaleActivation, learnable: bool, start: float) -> None:
    net = decoder(scale)
    assert net.scale_bias.item() == start
    assert net.scale_bias.requires_grad is learnable
    net.activate(raw_mosaic(0.5))[:, 4:7].sum().backward() if learnable else None
    assert (net.scale_bias.grad is not None and net.scale_bias.grad.abs().item() > 0) is learnable
