"""Computes the first guesses."""

import torch
import torch.nn.functional as functional
from torch import Tensor

from z1g.camera import pixel_rays
from z1g.data.manifest import int_hash
from z1g.data.scenes import Scene
from z1g.seeding import torch_generator
from z1g.splat import join

INVISIBLE = 1e-3
"""Opacity of a pixel that shows no surface: below the rasterizers' 1/255, so it is never drawn."""


def from_depth(scene: Scene, views: list[int], size: int, footprint: float, opacity: float) -> Tensor:
    """Splatter images [6,14,S,S] by unprojecting the inputs' planar depth. Uncovered pixels lie at the ray's anchor."""
    if scene.depth is None:
        raise ValueError(f"{scene.id} has no depth")
    rgb, alpha = scene.pictures(views)
    depth, covered = _shrink_depth(scene.depth[:, None], size)
    rgb, alpha = (functional.interpolate(x, (size, size), mode="area") for x in (rgb, alpha))
    cameras = scene.cameras(views, size)
    origins, directions = (x[0] for x in pixel_rays(cameras))
    covered = covered & (alpha > 0.5)
    radius = origins[0, :, 0, 0].norm()
    depth = torch.where(covered, depth, radius)
    pixel = depth / cameras.focal
    rotation = torch.zeros(len(views), 4, size, size)
    rotation[:, 0] = 1
    return join(
        {
            "position": (origins + depth * directions).clamp(-1, 1),
            "opacity": torch.where(covered, opacity, INVISIBLE),
            "scale": (footprint * pixel).expand(-1, 3, -1, -1),
            "rotation": rotation,
            "rgb": (rgb / alpha.clamp(min=1e-3)).clamp(0.01, 0.99),
        },
        dim=1,
    )


def random_ball(scene: Scene, size: int, radius: float, opacity: float) -> Tensor:
    """Splatter images [6,14,S,S] with positions uniform in a ball, seeded by the object."""
    generator = torch_generator(int_hash(scene.id))
    direction = functional.normalize(torch.randn(6, 3, size, size, generator=generator), dim=1)
    distance = radius * torch.rand(6, 1, size, size, generator=generator) ** (1 / 3)
    rotation = torch.zeros(6, 4, size, size)
    rotation[:, 0] = 1
    spacing = radius / (6 * size * size) ** (1 / 3)
    return join(
        {
            "position": direction * distance,
            "opacity": torch.full((6, 1, size, size), opacity),
            "scale": torch.full((6, 3, size, size), spacing),
            "rotation": rotation,
            "rgb": torch.full((6, 3, size, size), 0.5),
        },
        dim=1,
    )


def _shrink_depth(depth: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Depth [6,1,S,S] of the nearest covered pixel in each cell, and where there is any.

    The nearest, not the mean: a mean over an edge would float between foreground and background.
    """
    far = 1e6
    filled = torch.where(depth > 0, depth, far)
    small = -functional.adaptive_max_pool2d(-filled, size)
    return small, small < far
