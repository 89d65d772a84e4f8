"""The visual hull of an object as depth maps of its inputs (Laurentini, PAMI 1994)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from z1g.core.device import default_device
from z1g.data.scenes import Scene
from z1g.geometry.camera import INPUT_VIEWS, Cameras, pixel_rays

BISECTIONS = 8
NEAREST = 1e-3
"""Depth from which a camera sees."""
RAYS_AT_ONCE = 16_384
"""Bounds the memory: 64 points along each make a million points."""


@dataclass(frozen=True)
class Silhouettes:
    """What is inside: alpha [V,1,H,W] of V views and their world-to-camera transforms [V,4,4]."""

    alpha: Tensor
    w2c: Tensor
    focal: float
    threshold: float

    def contain(self, points: Tensor) -> Tensor:
        """Which of the points [P,3] no view rules out. A view that does not see a point says nothing about it."""
        inside = torch.arange(len(points), device=points.device)
        height, width = self.alpha.shape[-2:]
        extent = torch.tensor([width, height], device=points.device) / (2 * self.focal)
        for alpha, w2c in zip(self.alpha, self.w2c, strict=True):
            local = points[inside] @ w2c[:3, :3].T + w2c[:3, 3]
            depth = local[:, 2:]
            at = local[:, :2] / depth.clamp(min=NEAREST) / extent
            seen = (depth[:, 0] > NEAREST) & (at.abs() < 1).all(dim=1)
            # With zeros around the image, what fills it would end half a pixel before its edge.
            shown = functional.grid_sample(alpha[None], at[None, None], padding_mode="border", align_corners=False)
            shown = shown[0, 0, 0]
            inside = inside[(shown >= self.threshold) | ~seen]
        result = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        result[inside] = True
        return result


@torch.no_grad()
def hull_depth(scene: Scene, views: Sequence[int], size: int, radius: float, samples: int, threshold: float) -> Tensor:
    """Planar depth [6,S,S] at which rays of the inputs' pixels enter the hull of the silhouettes, 0 where they miss it.

    Searched up to `radius` before and behind the origin, at `samples` points, then by bisection.
    """
    device = default_device()
    images = scene.cameras(list(views)).to(device)
    alpha = scene.images(list(views))[1].to(device)
    hull = Silhouettes(alpha, images.world_to_camera()[0], images.focal, threshold)
    inputs = scene.cameras(list(INPUT_VIEWS), size).to(device)
    origins, directions = (x[0].permute(0, 2, 3, 1).flatten(0, 2) for x in pixel_rays(inputs))
    shown = functional.interpolate(scene.images(list(INPUT_VIEWS))[1].to(device), (size, size), mode="area")
    depth, reach = torch.zeros(len(origins), device=device), _reach(inputs, radius)
    for rays in (shown.flatten() > 0).nonzero()[:, 0].split(RAYS_AT_ONCE):
        depth[rays] = _entry(hull, origins[rays], directions[rays], reach, samples)
    return depth.view(len(INPUT_VIEWS), size, size)


def _reach(inputs: Cameras, radius: float) -> tuple[float, float]:
    """Nearest and farthest planar depth to search."""
    distance = float(inputs.c2w[0, 0, :3, 3].norm())
    return max(distance - radius, NEAREST), distance + radius


def _entry(hull: Silhouettes, origins: Tensor, directions: Tensor, reach: tuple[float, float], samples: int) -> Tensor:
    """Depth [R] at which rays [R,3] enter the hull, 0 where they miss it."""
    steps = torch.linspace(*reach, samples, device=origins.device)
    points = origins[:, None] + steps[:, None] * directions[:, None]
    inside = hull.contain(points.flatten(0, 1)).view(-1, samples)
    hit = inside.any(dim=1)
    first = inside.int().argmax(dim=1)
    far, near = steps[first], steps[(first - 1).clamp(min=0)]
    for _ in range(BISECTIONS):
        middle = (near + far) / 2
        within = hull.contain(origins + middle[:, None] * directions)
        near, far = torch.where(within, near, middle), torch.where(within, middle, far)
    return torch.where(hit, far, 0)
