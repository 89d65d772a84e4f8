"""Inputs of perceptual networks, resized as by torch."""

import pytest
import torch
import torch.nn.functional as functional
from support.diffusion import normal
from torch import Tensor

from z1g.losses import Comparison
from z1g.losses.lpips import StLpipsLoss
from z1g.networks.perceptual import _weights, resized, st_lpips


@pytest.mark.parametrize(("old", "new"), [((128, 128), 64), ((100, 70), 64), ((32, 48), 64)])
def test_resized_as_torch_does(old: tuple[int, int], new: int) -> None:
    """Values and gradients equal torch's."""
    results = []
    for work in (
        lambda x: resized(x, new),
        lambda x: functional.interpolate(x, (new, new), mode="bilinear", antialias=True, align_corners=False),
    ):
        leaf = normal(2, 3, *old).requires_grad_(True)
        out = work(leaf)
        (out * normal(2, 3, new, new, seed=1)).sum().backward()
        results.append((out.detach(), leaf.grad))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)
    assert _weights(old[0], new, torch.device("cpu")).sum(dim=1) == pytest.approx(1.0)


def skipping(x: Tensor, new: int, axis: int) -> Tensor:
    """Linear interpolation between the two pixels next to each new center, along one axis, in float64."""
    old = x.shape[axis]
    centers = (torch.arange(new, dtype=torch.float64) + 0.5) * old / new - 0.5
    low = centers.clamp(min=0).floor().long()
    high, share = (low + 1).clamp(max=old - 1), (centers.clamp(min=0) - low)
    share = share.view([-1 if i == axis else 1 for i in range(x.ndim)])
    return x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share


@pytest.mark.parametrize(("old", "new"), [((128, 128), 64), ((150, 90), 64)])
def test_without_antialiasing_pixels_are_skipped_as_in_the_original(old: tuple[int, int], new: int) -> None:
    images = normal(2, 3, *old)
    expected = skipping(skipping(images.double(), new, 2), new, 3)
    torch.testing.assert_close(resized(images, new, antialias=False).double(), expected, atol=1e-4, rtol=0)
    assert (resized(images, new) - resized(images, new, antialias=False)).abs().max() > 0.5


def test_the_loss_sees_images_without_antialiasing() -> None:
    a, b = (torch.rand(1, 1, 3, 128, 128, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    small = [skipping(skipping(x[0].double(), 64, 2), 64, 3).float() for x in (a, b)]
    expected = float(st_lpips("alex")(*small).mean())
    skipped, smooth = (
        float(StLpipsLoss(resolution=64, antialias=antialias).compute(Comparison(rgb=a, rgb_true=b)))
        for antialias in (False, True)
    )
    assert skipped == pytest.approx(expected, rel=1e-4)
    assert smooth != pytest.approx(expected, rel=1e-2)
