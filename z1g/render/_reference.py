"""Plain torch blending (Kerbl et al. 2023, eq. 3)."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from z1g.camera import Cameras
from z1g.render import RenderOutput
from z1g.render._project import MIN_ALPHA, MIN_TRANSMITTANCE, project

PAIRS_AT_ONCE = 4_000_000
"""Pixel-Gaussian pairs held in memory at a time."""


def draw(
    gaussians: Tensor, cameras: Cameras, near: float, cap: float, precision: Literal["float32", "float64"]
) -> RenderOutput:
    """Render [B,N,14] from [B,V] cameras; the result has the input's type."""
    dtype = getattr(torch, precision)
    seen = project(gaussians.to(dtype), replace(cameras, c2w=cameras.c2w.to(dtype)), near)
    b, v, n = seen.depth.shape
    pixels = _pixel_centres(cameras, dtype).to(gaussians.device)
    size = max(1, PAIRS_AT_ONCE // max(n, 1))
    pictures = []
    for i in range(b):
        for j in range(v):
            order = seen.depth[i, j].argsort(stable=True)
            order = order[seen.extent[i, j, order, 0] > 0]
            features = torch.cat(
                [seen.rgb[i, order], torch.ones_like(order, dtype=dtype)[:, None], seen.depth[i, j, order, None]], dim=1
            )
            arguments = seen.mean[i, j, order], seen.conic[i, j, order], seen.opacity[i, order], features, cap
            pictures.append(torch.cat([_blend(chunk, *arguments) for chunk in pixels.split(size)]))
    stacked = torch.stack(pictures).view(b, v, cameras.height, cameras.width, 5).movedim(-1, 2).to(gaussians.dtype)
    return RenderOutput(stacked[:, :, :3], stacked[:, :, 3:4], stacked[:, :, 4:5])


def _pixel_centres(cameras: Cameras, dtype: torch.dtype) -> Tensor:
    y, x = torch.meshgrid(torch.arange(cameras.height), torch.arange(cameras.width), indexing="ij")
    return torch.stack([x, y], dim=-1).view(-1, 2).to(dtype) + 0.5


def _blend(pixels: Tensor, mean: Tensor, conic: Tensor, opacity: Tensor, features: Tensor, cap: float) -> Tensor:
    """Features [P,5] at pixel centres [P,2] from Gaussians in depth order."""
    dx, dy = (pixels[:, None] - mean).unbind(-1)
    power = -0.5 * (conic[:, 0] * dx * dx + conic[:, 2] * dy * dy) - conic[:, 1] * dx * dy
    alpha = (opacity * power.clamp(max=0).exp()).clamp(max=cap)
    alpha = torch.where(alpha >= MIN_ALPHA, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    weight = torch.where(after > MIN_TRANSMITTANCE, alpha * before, torch.zeros_like(alpha))
    return weight @ features
