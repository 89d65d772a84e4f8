"""Computation of initial splatter images."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from z1g.core.device import default_device
from z1g.core.seeding import torch_generator
from z1g.data.manifest import int_hash
from z1g.data.scenes import Scene
from z1g.fitting._discs import disc_rotation, surface_normals
from z1g.gaussians.channels import join
from z1g.geometry.camera import INPUT_VIEWS, pixel_rays
from z1g.render.projection import LOW_PASS_PX2

COVERED = 0.6
"""Alpha from which a pixel counts as surface: a Gaussian on a silhouette's edge would extend beyond it."""
SAME_SURFACE = 0.02
"""Pixels of a cell whose inverse depths differ by less than this fraction belong to one surface."""
INVISIBLE = 1e-3
"""Opacity of a pixel without surface: below the rasterizers' threshold of 1/255, so it is never rendered."""


@dataclass(frozen=True)
class Shape:
    """Shape of the Gaussians on the surface of a depth map.

    footprint: standard deviation along the surface in pixel widths. thickness: standard deviation across it as a
    fraction of the footprint. opacity: of each Gaussian. sink: depth below the surface in standard deviations of the
    projected Gaussian; a Gaussian on the surface would extend beyond the object's silhouette.
    """

    footprint: float
    thickness: float
    opacity: float
    sink: float


def from_depth(scene: Scene, depth: Tensor, size: int, shape: Shape) -> Tensor:
    """Splatter images [6,14,S,S] by unprojecting planar depth [6,H,W] of the input views, 0 for background.

    Each covered pixel becomes a disc on the surface. Pixels without surface become invisible Gaussians with a depth
    equal to the camera's distance from the origin.
    """
    device = default_device()
    views = list(INPUT_VIEWS)
    rgb, alpha = (x.to(device) for x in scene.images(views))
    image_size = rgb.shape[-1]
    depth, covered = _shrink_depth(depth.to(device)[:, None], size)
    rgb, alpha = (functional.interpolate(x, (size, size), mode="area") for x in (rgb, alpha))
    cameras = scene.cameras(views, size).to(device)
    origins, directions = (x[0] for x in pixel_rays(cameras))
    covered = covered & (alpha > COVERED)
    depth = torch.where(covered, depth, origins[0, :, 0, 0].norm())
    position = origins + depth * directions
    pixel = depth / cameras.focal
    normals = surface_normals(position, covered, directions)
    low_pass = LOW_PASS_PX2**0.5 * size / image_size
    sink = shape.sink * math.hypot(shape.footprint, low_pass) * pixel
    along = (shape.footprint * pixel).expand(-1, 2, -1, -1)
    return join(
        {
            "position": torch.where(covered, position - sink * normals, position).clamp(-1, 1),
            "opacity": torch.where(covered, shape.opacity, INVISIBLE),
            "scale": torch.cat([along, shape.thickness * along[:, :1]], dim=1),
            "rotation": disc_rotation(normals, cameras.c2w[0, :, :3, 2]),
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
    """Depth [6,1,S,S] of the nearest surface in each cell, and a mask of the cells with a surface.

    Averages over the pixels of that surface and not over the cell: at an edge, the cell's mean would be between
    foreground and background. Averages inverse depth, which is linear in the image of a plane.
    """
    valid = depth > 0
    inverse = torch.where(valid, 1 / depth.clamp(min=1e-6), 0)
    nearest = functional.adaptive_max_pool2d(inverse, size)
    same = valid & (inverse > (1 - SAME_SURFACE) * functional.interpolate(nearest, depth.shape[-2:], mode="nearest"))
    share = functional.adaptive_avg_pool2d(same.float(), size)
    mean = functional.adaptive_avg_pool2d(torch.where(same, inverse, 0), size) / share.clamp(min=1e-6)
    covered = share > 0
    return torch.where(covered, 1 / mean.clamp(min=1e-6), 0), covered
