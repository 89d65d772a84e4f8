"""Fusion of depth images into a closed surface: a truncated signed distance field on a grid (Curless & Levoy 1996) and
marching cubes.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.progress import Check, no_check, track
from z1g.surface.views import Views

MARGIN = 4
"""Empty voxels around the object, so that the surface is closed."""
TRUNCATION = 4.0
"""Truncation of the signed distance, voxels."""
COVERED = 0.5
"""Pixels with less alpha are background."""
HIDDEN = 0.3
"""Weight of a view in which a voxel is occluded. If a few views see the far side through a gap between Gaussians, the
many others outvote them. This also moves the surface outward by one to two voxels, which approximately compensates that
fitted Gaussians are sunk below the surface."""


class Triangles(NamedTuple):
    """Points [N,3] float64 and faces [F,3] int64, counter-clockwise seen from outside."""

    points: NDArray[np.float64]
    faces: NDArray[np.int64]


def fuse(views: Views, low: Tensor, high: Tensor, resolution: int, check: Check = no_check) -> Triangles:
    """Extract the surface in the box `low` [3] to `high` [3], with `resolution` voxels along its longest side.

    Raises UserError if there is no surface.
    """
    from skimage.measure import marching_cubes

    voxel = float((high - low).max()) / resolution
    start = low - MARGIN * voxel
    counts = [int(n) for n in ((high - low) / voxel).ceil().long() + 2 * MARGIN]
    axes = [start[i] + voxel * torch.arange(n, device=low.device) for i, n in enumerate(counts)]
    volume = _distance(views, axes, TRUNCATION * voxel, check).cpu().numpy()
    if not volume.min() < 0 < volume.max():
        raise UserError("the Gaussians show no surface: they are too faint or too few")
    points, faces, _, _ = marching_cubes(volume, 0.0, gradient_direction="descent")
    return Triangles(points * voxel + start.cpu().double().numpy(), faces.astype(np.int64))


def _distance(views: Views, axes: list[Tensor], truncation: float, check: Check) -> Tensor:
    """Signed distance [X,Y,Z] in -1..1, in units of the truncation; positive outside.

    For each view, voxels in front of its depth or on its background are outside, and voxels behind its surface are
    inside with a low weight.
    """
    total = torch.zeros([len(axis) for axis in axes], device=axes[0].device)
    weight = torch.zeros_like(total)
    w2c = views.cameras.world_to_camera()[0]
    from_object = _pixels_to_object(views).to(total)
    for view in track(range(len(w2c)), "fusing depth", len(w2c)):
        check()
        pixel, z = _project(w2c[view], views, axes)
        inside = pixel >= 0
        index = pixel.clamp(min=0)
        pixels_outside = from_object[view].flatten()[index]
        gap = torch.where(
            pixels_outside > 0, pixels_outside * z / views.cameras.focal, views.depth[view, 0].flatten()[index] - z
        )
        distance = (gap / truncation).clamp(-1.0, 1.0)
        view_weight = torch.where(distance > -1, 1.0, HIDDEN) * inside
        total += view_weight * distance
        weight += view_weight
    return torch.where(weight > 0, total / weight, -1.0)


def _pixels_to_object(views: Views) -> Tensor:
    """Distance [V,H,W] of each background pixel from the object in pixels, 0 on it. Next to a silhouette the surface is
    near, so that the noisy edge of one view does not cut off thin parts.
    """
    from scipy.ndimage import distance_transform_edt

    background = (views.alpha[:, 0] < COVERED).cpu().numpy()
    return torch.from_numpy(np.stack([distance_transform_edt(view) for view in background]))


def _project(w2c: Tensor, views: Views, axes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Index of the pixel that each grid point projects to, -1 outside the image, and the point's camera-space z."""
    x, y, z = (
        w2c[row, 0] * axes[0][:, None, None]
        + (w2c[row, 1] * axes[1][:, None] + (w2c[row, 2] * axes[2] + w2c[row, 3]))[None]
        for row in range(3)
    )
    cameras = views.cameras
    column = (x / z * cameras.focal + cameras.width / 2).floor().long()
    line = (y / z * cameras.focal + cameras.height / 2).floor().long()
    visible = (z > 0) & (column >= 0) & (column < cameras.width) & (line >= 0) & (line < cameras.height)
    return torch.where(visible, line * cameras.width + column, -1), z
