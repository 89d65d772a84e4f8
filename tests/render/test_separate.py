"""Gaussians separated for gsplat by a kernel and by torch. Without a GPU, Triton's interpreter runs it: conftest.py."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from z1g.render import _separate
from z1g.render._separate import Separated, WithDepth, separated
from z1g.render.projection import LARGEST

Array = NDArray[np.float64]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BELOW = float(np.nextafter(np.float32(LARGEST), np.float32(0)))
WAYS = ["kernel", "torch"]
values = st.sampled_from([np.nan, np.inf, -np.inf, LARGEST, -LARGEST, 3e38, BELOW, -BELOW, 0.0, 1e-40])
"""Values that make a Gaussian unusable, and some that do not."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(request.param, monkeypatch)


def choose(way: str, patch: pytest.MonkeyPatch) -> None:
    if way == "kernel":
        pytest.importorskip("triton")
    patch.setattr(_separate, "fused", lambda device: way == "kernel")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def numbers(tensor: Tensor) -> Array:
    return tensor.detach().double().cpu().numpy()


def slopes(part: Separated) -> list[Tensor]:
    """Made-up gradients of the five that have one."""
    results = [part.position, part.scale, part.rotation, part.opacities, part.colors]
    return [drawn(*result.shape, seed=i) for i, result in enumerate(results, 1)]


def check(g: Tensor, views: int) -> None:
    """Values and gradients against loops in float64."""
    leaf = g.clone().requires_grad_(True)
    part = separated(leaf, views)
    for result in part:
        assert result.is_contiguous()
    expected = numbers(g)
    for row in np.ndindex(g.shape[:2]):
        if not all(np.isfinite(x) and abs(x) < LARGEST for x in expected[row]):
            expected[row] = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(numbers(part.position), expected[..., 0:3])
    np.testing.assert_array_equal(numbers(part.opacity), expected[..., 3])
    np.testing.assert_array_equal(numbers(part.scale), expected[..., 4:7])
    np.testing.assert_array_equal(numbers(part.rotation), expected[..., 7:11])
    for view in range(views):
        np.testing.assert_array_equal(numbers(part.opacities[:, view]), expected[..., 3])
        np.testing.assert_array_equal(numbers(part.colors[:, view, :, :3]), expected[..., 11:14])
    given_slopes = slopes(part)
    (slope,) = torch.autograd.grad([*part[:1], *part[2:]], leaf, given_slopes)
    position, scale, rotation, opacities, colors = map(numbers, given_slopes)
    sums = [position, sum(opacities[:, view] for view in range(views))[..., None], scale, rotation]
    sums += [sum(colors[:, view, :, :3] for view in range(views))]
    np.testing.assert_allclose(numbers(slope), np.concatenate(sums, axis=2), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", WAYS)
@settings(max_examples=30)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 150), st.integers(1, 4)),
    placed=st.lists(st.tuples(st.integers(0), values), max_size=8),
    seed=st.integers(0, 99),
)
def test_parts_and_gradients_are_those_of_the_channels(
    chosen: str, sizes: tuple[int, int, int], placed: list[tuple[int, float]], seed: int
) -> None:
    b, n, views = sizes
    g = drawn(b, n, 14, seed=seed)
    for index, value in placed:
        g.view(-1)[index % g.numel()] = value
    with pytest.MonkeyPatch.context() as patch:
        choose(chosen, patch)
        check(g, views)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("value", [np.nan, np.inf, -LARGEST, BELOW])
def test_each_channel_decides(value: float) -> None:
    g = drawn(2, 14, 14)
    g[0].fill_diagonal_(value)
    check(g, 2)


@pytest.mark.usefixtures("way")
def test_gaussians_may_have_any_strides() -> None:
    g = drawn(14, 2, 70).permute(1, 2, 0)
    check(g, 3)
    check(drawn(1, 70, 14).expand(3, -1, -1), 1)


@pytest.mark.usefixtures("way")
def test_without_gradients_there_is_no_graph() -> None:
    for part in separated(drawn(1, 9, 14), 2):
        assert not part.requires_grad
    leaf = drawn(1, 9, 14).requires_grad_(True)
    part = separated(leaf, 2)
    assert not part.opacity.requires_grad
    part.scale.sum().backward()
    assert leaf.grad is not None
    expected = np.zeros((1, 9, 14))
    expected[..., 4:7] = 1
    np.testing.assert_array_equal(numbers(leaf.grad), expected)


def test_depth_is_the_fourth_channel_of_color() -> None:
    rgb, depths = drawn(2, 3, 5, 4).requires_grad_(True), drawn(2, 3, 5, seed=1).requires_grad_(True)
    colors = WithDepth.apply(rgb.clone(), depths)
    np.testing.assert_array_equal(
        numbers(colors), np.concatenate([numbers(rgb)[..., :3], numbers(depths)[..., None]], 3)
    )
    weight = drawn(2, 3, 5, 4, seed=2)
    (colors * weight).sum().backward()
    assert rgb.grad is not None
    assert depths.grad is not None
    np.testing.assert_array_equal(numbers(rgb.grad)[..., :3], numbers(weight)[..., :3])
    np.testing.assert_array_equal(numbers(depths.grad), numbers(weight)[..., 3])


def test_kernels_are_for_the_current_gpu() -> None:
    assert not _separate.fused(torch.device("cpu"))
    if torch.cuda.is_available():
        assert not _separate.fused(torch.device("cuda", torch.cuda.current_device() + 1))
