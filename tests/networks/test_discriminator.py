"""Discriminators: spectral norms against singular values, convolutions against numpy, what an output sees."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from z1g.networks.discriminator import FeatureDiscriminator, PatchDiscriminator, SpectralConv


def discriminator(layers: int = 3, channels: int = 4) -> PatchDiscriminator:
    torch.manual_seed(3)
    return PatchDiscriminator(3, channels, layers)


def singular(layer: SpectralConv) -> float:
    matrix = layer.weight.detach().double().numpy().reshape(layer.out_channels, -1)
    return float(np.linalg.svd(matrix, compute_uv=False)[0])


def convolved(
    x: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64], stride: int, padding: int = 1
) -> NDArray[np.float64]:
    """A convolution [C,H,W] -> [O,h,w], window by window."""
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    k = weight.shape[-1]
    rows, columns = ((size - k) // stride + 1 for size in padded.shape[1:])
    out = np.empty((len(weight), rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = padded[:, i * stride : i * stride + k, j * stride : j * stride + k]
            out[:, i, j] = (weight * window).sum(axis=(1, 2, 3)) + bias
    return out


def test_power_iterations_find_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    layer = SpectralConv(4, 6, stride=2)
    with torch.no_grad():
        layer.weight.mul_(7.0)
    for _ in range(300):
        layer.iterate()
    impulses = torch.eye(4 * 16).view(64, 4, 4, 4)
    with torch.no_grad():
        # The window in the middle sees all of the image; without bias the outputs are the normalized matrix.
        rows = torch.nn.functional.pad(impulses, (1, 1, 1, 1))
        matrix = layer(rows)[:, :, 1, 1] - layer.bias
    assert np.linalg.svd(matrix.double().numpy(), compute_uv=False)[0] == pytest.approx(1, abs=1e-5)
    assert singular(layer) > 2


def test_outputs_do_not_depend_on_earlier_passes() -> None:
    network, images = discriminator(), torch.rand(2, 3, 32, 32)
    first = network(images)
    for _ in range(3):
        network(torch.rand(1, 3, 32, 32))
    assert torch.equal(network(images), first)
    torch.testing.assert_close(network(images[1:]), first[1:], atol=1e-6, rtol=1e-5)


def test_against_numpy() -> None:
    network, image = discriminator(layers=2), np.random.default_rng(0).normal(size=(3, 16, 16))
    for _ in range(300):
        network.iterate()
    x = image
    for layer in [network.first, *network.inner, network.last]:
        assert isinstance(layer, torch.nn.Conv2d)
        assert layer.bias is not None
        weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
        if isinstance(layer, SpectralConv):
            weight = weight / singular(layer)
        x = convolved(x, weight, bias, layer.stride[0])
        if layer is not network.last:
            x = np.where(x > 0, x, 0.2 * x)
    actual = network(torch.from_numpy(image[None]).float())[0].detach().numpy()
    assert actual.shape == (1, 2, 2)
    np.testing.assert_allclose(actual, x, atol=1e-5)


@pytest.mark.parametrize(("layers", "seen"), [(1, 16), (2, 34), (3, 70)])
def test_what_a_patch_sees(layers: int, seen: int) -> None:
    network = discriminator(layers)
    image = torch.rand(1, 3, 128, 128, requires_grad=True)
    out = network(image)
    middle = out.shape[-1] // 2
    (slope,) = torch.autograd.grad(out[0, 0, middle, middle], image)
    rows = slope.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == seen


def test_gradients_pass_through_the_norm() -> None:
    """Against central differences in float64."""
    torch.manual_seed(1)
    layer = SpectralConv(2, 3, stride=1).double()
    x = torch.rand(1, 2, 5, 5, dtype=torch.float64)
    torch.autograd.gradcheck(
        lambda weight: torch.func.functional_call(layer, {"weight": weight}, (x,)),
        layer.weight.detach().requires_grad_(),
    )


def test_features_against_numpy() -> None:
    """Each level has layers of its own, and its features are scaled to a mean square of one."""
    torch.manual_seed(2)
    network, draw = FeatureDiscriminator([5, 3], 4), np.random.default_rng(1)
    for _ in range(300):
        network.iterate()
    features = [x / np.linalg.norm(x, axis=0) for x in (draw.normal(size=(5, 6, 6)), draw.normal(size=(3, 4, 4)))]
    outputs = network([torch.from_numpy(x[None]).float() for x in features])
    for level, feature, output in zip(network.levels, features, outputs, strict=True):
        assert isinstance(level, torch.nn.Sequential)
        x = feature * np.sqrt(len(feature))
        assert (x**2).mean() == pytest.approx(1)
        for i, layer in enumerate(layer for layer in level if isinstance(layer, torch.nn.Conv2d)):
            assert layer.bias is not None
            weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
            x = convolved(
                x, weight / singular(layer) if isinstance(layer, SpectralConv) else weight, bias, 1, min(i, 1)
            )
            x = x if i == 2 else np.where(x > 0, x, 0.2 * x)
        np.testing.assert_allclose(output[0].detach().numpy(), x, atol=1e-5)
