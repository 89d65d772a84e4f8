"""Sizes of gsplat's tiles: those that were faster on an H200 in the cases that were measured."""

import pytest
import torch

from z1g.render._gsplat import _tile

FORWARD = [
    (98304, 512, 16), (98304, 256, 8), (98304, 128, 8), (24576, 256, 16), (24576, 128, 8), (24576, 64, 8),
    (6144, 128, 16),
]  # fmt: skip


@pytest.mark.parametrize(("gaussians", "side", "faster"), FORWARD)
def test_the_faster_tiles_are_chosen(gaussians: int, side: int, faster: int) -> None:
    given = torch.empty(1, gaussians, 14, device="meta")
    assert _tile(given, side, side) == faster
    trained = given.requires_grad_(True)
    assert _tile(trained, side, side) == 8
    with torch.no_grad():
        assert _tile(trained, side, side) == faster
