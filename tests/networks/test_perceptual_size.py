"""Inputs of perceptual networks, resized as by torch."""

import pytest
import torch
import torch.nn.functional as functional
from support.diffusion import normal

from z1g.networks.perceptual import _weights, resized


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
