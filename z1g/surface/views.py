"""Renders of the Gaussians from all directions, in a normalized frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.progress import Check, Meter, no_check
from z1g.gaussians.channels import CHANNELS
from z1g.geometry.camera import Cameras, orbit_c2w
from z1g.render import Rasterizer

SOLID = 0.1
"""Opacity from which a Gaussian counts toward the object's bounds."""
RADIUS, FOV_Y_DEG = 1.5, 49.1
"""Cameras as in training: the sphere of radius 0.5 fills three quarters of the image."""
BATCH = 8
THICKER, DENSER = 2.0, 0.98
"""Factor on scales and minimum opacity for depth: fits have gaps through which the far side is visible."""


@dataclass(frozen=True)
class Frame:
    """Normalization of an object into the sphere of radius 0.5: p_frame = (p - center) · scale."""

    center: Tensor
    scale: float

    @classmethod
    def around(cls, gaussians: Tensor) -> Frame:
        """Frame of the solid ones of Gaussians [N,14]. Raises UserError if there are too few or all at one position."""
        # In float64, as squares of distances may be above the range of float32.
        positions = gaussians[gaussians[:, CHANNELS["opacity"].start] >= SOLID, CHANNELS["position"]].double()
        if len(positions) < 4:
            raise UserError(f"only {len(positions)} Gaussians have an opacity above {SOLID}: that is not an object")
        low, high = positions.min(dim=0).values, positions.max(dim=0).values
        center = (low + high) / 2
        reach = float((positions - center).norm(dim=1).max())
        if reach <= 0:
            raise UserError("all Gaussians have the same position: that is not an object")
        return cls(center.to(gaussians.dtype), 0.5 / reach)

    def enter(self, gaussians: Tensor) -> Tensor:
        """Transform Gaussians [N,14] to the frame."""
        moved = gaussians.clone()
        moved[:, CHANNELS["position"]] = (gaussians[:, CHANNELS["position"]] - self.center) * self.scale
        moved[:, CHANNELS["scale"]] = gaussians[:, CHANNELS["scale"]] * self.scale
        return moved

    def leave(self, points: np.ndarray) -> np.ndarray:
        """Transform points [N,3] back to the object's coordinates."""
        moved: np.ndarray = points / self.scale + self.center.cpu().double().numpy()
        return moved


@dataclass(frozen=True)
class Views:
    """Renders from V cameras around an object.

    rgb [V,3,H,W] in 0..1, not premultiplied; alpha [V,1,H,W]; depth [V,1,H,W], mean camera-space z.
    """

    cameras: Cameras
    rgb: Tensor
    alpha: Tensor
    depth: Tensor


def around(n: int, size: int) -> Cameras:
    """Cameras [1,n] that look at the origin from directions on a Fibonacci lattice of the sphere."""
    golden = 180 * (3 - math.sqrt(5))
    heights = [1 - (2 * i + 1) / n for i in range(n)]
    poses = [orbit_c2w(math.degrees(math.asin(y)), golden * i, RADIUS) for i, y in enumerate(heights)]
    return Cameras(torch.from_numpy(np.stack(poses)).float()[None], FOV_Y_DEG, size, size)


@torch.no_grad()
def look(rasterizer: Rasterizer, gaussians: Tensor, n: int, size: int, check: Check = no_check) -> Views:
    """Render Gaussians [N,14] that fill the sphere of radius 0.5 from `n` cameras."""
    cameras = around(n, size).to(gaussians.device)
    closed = _closed(gaussians)
    batches: list[tuple[Tensor, Tensor, Tensor]] = []
    with Meter("rendering views", n, quiet_s=5) as meter:
        for first in range(0, n, BATCH):
            check()
            ids = list(range(first, min(first + BATCH, n)))
            output = rasterizer.render(gaussians[None], cameras.views(ids))
            solid = rasterizer.render(closed[None], cameras.views(ids))
            rgb = output.rgb / output.alpha.clamp(min=1e-6)
            depth = solid.depth / solid.alpha.clamp(min=1e-6)
            batches.append((rgb[0].clamp(0, 1), output.alpha[0], depth[0]))
            meter.advance(len(ids))
    rgb, alpha, depth = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return Views(cameras, rgb, alpha, depth)


def _closed(gaussians: Tensor) -> Tensor:
    closed = gaussians.clone()
    closed[:, CHANNELS["scale"]] *= THICKER
    solid = gaussians[:, CHANNELS["opacity"]] >= SOLID
    closed[:, CHANNELS["opacity"]] = torch.where(solid, gaussians[:, CHANNELS["opacity"]].clamp(min=DENSER), 0.0)
    return closed
