"""The visual hull of an object as depth maps of its input views (Laurentini, PAMI 1994)."""

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
"""Near plane of the cameras."""
RAYS_AT_ONCE = 16_384
"""Limits memory: with 64 samples per ray, a million points."""


@dataclass(frozen=True)
class Silhouettes:
    """Silhouettes of an object: alpha [V,1,H,W] of V views and their world-to-camera transforms [V,4,4]."""

    alpha: Tensor
    w2c: Tensor
    focal: float
    threshold: float

    def contain(self, points: Tensor) -> Tensor:
        """Mask [P] of the points [P,3] that are inside all silhouettes. Views that do not see a point are ignored."""
        inside = torch.arange(len(points), device=points.device)
        height, width = self.alpha.shape[-2:]
        extent = torch.tensor([width, height], device=points.device) / (2 * self.focal)
        for alpha, w2c in zip(self.alpha, self.w2c, strict=True):
            local = points[inside] @ w2c[:3, :3].T + w2c[:3, 3]
            depth = local[:, 2:]
            uv = local[:, :2] / depth.clamp(min=NEAREST) / extent
            visible = (depth[:, 0] > NEAREST) & (uv.abs() < 1).all(dim=1)
            # With zero padding, a silhouette that fills the image would end half a pixel before its edge.
            sampled = functional.grid_sample(alpha[None], uv[None, None], padding_mode="border", align_corners=False)
            sampled = sampled[0, 0, 0]
            inside = inside[(sampled >= self.threshold) | ~visible]
        result = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        result[inside] = True
        return result


@torch.no_grad()
def hull_depth(scene: Scene, views: Sequence[int], size: int, radius: float, samples: int, threshold: float) -> Tensor:
    """Planar depth [6,S,S] where rays of the input views' pixels enter the visual hull, 0 for rays that miss it.

    Searches `samples` points up to `radius` in front of and behind the origin, then refines by bisection.
    """
    device = default_device()
    images = scene.cameras(list(views)).to(device)
    alpha = scene.images(list(views))[1].to(device)
    hull = Silhouettes(alpha, images.world_to_camera()[0], images.focal, threshold)
    inputs = scene.cameras(list(INPUT_VIEWS), size).to(device)
    origins, directions = (x[0].permute(0, 2, 3, 1).flatten(0, 2) for x in pixel_rays(inputs))
    coverage = functional.interpolate(scene.images(list(INPUT_VIEWS))[1].to(device), (size, size), mode="area")
    depth, reach = torch.zeros(len(origins), device=device), _reach(inputs, radius)
    for rays in (coverage.flatten() > 0).nonzero()[:, 0].split(RAYS_AT_ONCE):
        depth[rays] = _entry(hull, origins[rays], directions[rays], reach, samples)
    return depth.view(len(INPUT_VIEWS), size, size)


def _reach(inputs: Cameras, radius: float) -> tuple[float, float]:
    """Smallest and largest planar depth to search."""
    distance = float(inputs.c2w[0, 0, :3, 3].norm())
    return max(distance - radius, NEAREST), distance + radius


def _entry(hull: Silhouettes, origins: Tensor, directions: Tensor, reach: tuple[float, float], samples: int) -> Tensor:
    """Depth [R] where rays [R,3] enter the hull, 0 for rays that miss it."""
    steps = torch.linspace(*reach, samples, device=origins.device)
    points = origins[:, None] + steps[:, None] * directions[:, None]
    inside = hull.contain(points.flatten(0, 1)).view(-1, samples)
    hit = inside.any(dim=1)
    first = inside.int().argmax(dim=1)
    far, near = steps[first], steps[(first - 1).clamp(min=0)]
    for _ in range(BISECTIONS):
        middle = (near + far) / 2
        is_inside = hull.contain(origins + middle[:, None] * directions)
        near, far = torch.where(is_inside, near, middle), torch.where(is_inside, middle, far)
    return torch.where(hit, far, 0)
