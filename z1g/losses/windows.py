"""Windows of images, for losses on details."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from z1g.core.lazy import torch

STEPS = (0.7548776662466927, 0.5698402909980532)
"""1/p and 1/p² with p³ = p + 1: of all pairs, their multiples modulo 1 fill the square most evenly."""


def windows(images: Tensor, side: int, epoch: Tensor | None) -> Tensor:
    """Windows [B,V,C,side,side] of images [B,V,C,H,W]; an image that is not larger stays whole along that axis.

    All objects of an epoch have the same place, so that a repeated or resumed run compares the same pixels. Over epochs
    and views, places are those of the R2 sequence (Roberts 2018, "The unreasonable effectiveness of quasirandom
    sequences"). Without `epoch` [B] the window is the center.
    """
    for axis, step in zip((-2, -1), STEPS, strict=True):
        free = images.shape[axis] - side
        if free > 0:
            images = _along(images, axis, _starts(images, free, step, epoch), side)
    return images


def _starts(images: Tensor, free: int, step: float, epoch: Tensor | None) -> Tensor:
    """First pixel [B,V] of each window, in 0..free."""
    objects, views = images.shape[:2]
    if epoch is None:
        return torch.full((objects, views), free // 2, device=images.device)
    index = epoch.to(images.device)[:, None] * views + torch.arange(views, device=images.device)
    # In float64, since the index of late epochs times a step has few digits left behind the point in float32.
    share = (0.5 + (index.double() + 1) * step) % 1
    return (share * (free + 1)).long().clamp(max=free)


def _along(images: Tensor, axis: int, starts: Tensor, side: int) -> Tensor:
    places = starts[:, :, None] + torch.arange(side, device=images.device)
    shape = list(images.shape)
    shape[axis] = side
    spread = places[:, :, None, :, None] if axis == -2 else places[:, :, None, None, :]
    return images.gather(images.ndim + axis, spread.expand(shape))
