"""Texturing of a mesh: UV unwrapping by xatlas and baking from the views that see each texel best."""

from typing import NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from z1g.core.progress import Check, no_check, track
from z1g.surface.fusion import COVERED, Triangles
from z1g.surface.views import Views

SHARPNESS = 4
"""Exponent of a view's weight, the cosine between its direction and the surface normal."""
DEPTH_SLACK = 0.03
"""A point is occluded if the depth of the image is nearer by more than this; the object's diameter is 1."""
GRAY = 0.5

Floats = NDArray[np.float64]


class Unwrapped(NamedTuple):
    """A mesh whose points are split at the seams of its texture.

    points [N,3], normals [N,3], faces [F,3], uv [N,2] in 0..1 with v up; origin [N]: index of the original point.
    """

    points: Floats
    normals: Floats
    faces: NDArray[np.int64]
    uv: Floats
    origin: NDArray[np.int64]


def unwrap(surface: Triangles, size: int) -> Unwrapped:
    """Unwrap into non-overlapping charts in the unit square, two texels apart in a texture of width `size`."""
    import xatlas

    atlas, packing = xatlas.Atlas(), xatlas.PackOptions()
    atlas.add_mesh(surface.points.astype(np.float32), surface.faces.astype(np.uint32))
    packing.resolution, packing.padding = size, 2
    atlas.generate(pack_options=packing)
    index, faces, uv = atlas[0]
    normals = point_normals(surface)
    origin = index.astype(np.int64)
    return Unwrapped(surface.points[origin], normals[origin], faces.astype(np.int64), uv.astype(np.float64), origin)


def point_normals(surface: Triangles) -> Floats:
    """Unit normals [N,3]: area-weighted means of the adjacent faces' normals."""
    a, b, c = (surface.points[surface.faces[:, i]] for i in range(3))
    face_normals = np.cross(b - a, c - a)
    total = np.zeros_like(surface.points)
    for corner in range(3):
        np.add.at(total, surface.faces[:, corner], face_normals)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    normals: Floats = total / np.maximum(length, 1e-20)
    return normals


def bake(mesh: Unwrapped, views: Views, size: int, check: Check = no_check) -> NDArray[np.uint8]:
    """Bake a texture [size,size,3], first row at v = 1; texels outside the charts have the nearest chart's colors."""
    covered, position, normal = texels(mesh, size)
    points, normals = (torch.from_numpy(values[covered]).to(views.rgb) for values in (position, normal))
    color, valid = _view_colors(points, normals, views, check)
    image = np.full((size, size, 3), GRAY)
    image[covered] = color.cpu().numpy()
    filled = covered.copy()
    filled[covered] = valid.cpu().numpy()
    return (_spread(image, filled) * 255).round().astype(np.uint8)


def texels(mesh: Unwrapped, size: int) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Mask [S,S] of texels that a face covers, and their positions and normals [S,S,3]; row 0 at v = 1."""
    face, weights = _rasterized(mesh.uv * [1, -1] * size + [0, size], mesh.faces, size)
    covered = face >= 0
    corners = mesh.faces[face[covered]]
    parts = []
    for values in (mesh.points, mesh.normals):
        filled = np.zeros((size, size, 3))
        filled[covered] = (weights[covered][..., None] * values[corners]).sum(axis=1)
        parts.append(filled)
    return covered, parts[0], parts[1]


@numba.njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _rasterized(uv: Floats, faces: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], Floats]:
    """Face [S,S] at each texel's center, -1 for none, and its barycentric weights [S,S,3]; uv in texels, y down."""
    face = np.full((size, size), -1, np.int64)
    weights = np.zeros((size, size, 3))
    for f in range(len(faces)):
        ax, ay = uv[faces[f, 0], 0], uv[faces[f, 0], 1]
        bx, by = uv[faces[f, 1], 0], uv[faces[f, 1], 1]
        cx, cy = uv[faces[f, 2], 0], uv[faces[f, 2], 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0:
            continue
        for row in range(max(0, int(min(ay, by, cy) - 0.5)), min(size, int(max(ay, by, cy)) + 1)):
            for column in range(max(0, int(min(ax, bx, cx) - 0.5)), min(size, int(max(ax, bx, cx)) + 1)):
                x, y = column + 0.5, row + 0.5
                wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
                wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
                if wb >= 0 and wc >= 0 and wb + wc <= 1:
                    face[row, column] = f
                    weights[row, column, 0] = 1 - wb - wc
                    weights[row, column, 1] = wb
                    weights[row, column, 2] = wc
    return face, weights


def _view_colors(points: Tensor, normals: Tensor, views: Views, check: Check) -> tuple[Tensor, Tensor]:
    """Colors [N,3] of surface points from the views that see them, and a mask [N] of points seen in any view."""
    total, weight = torch.zeros_like(points), torch.zeros_like(points[:, :1])
    cameras = views.cameras
    w2c = cameras.world_to_camera()[0]
    for view in track(range(len(w2c)), "baking", len(w2c)):
        check()
        local = points @ w2c[view, :3, :3].T + w2c[view, :3, 3]
        z = local[:, 2].clamp(min=1e-6)
        column = local[:, 0] / z * cameras.focal + cameras.width / 2
        row = local[:, 1] / z * cameras.focal + cameras.height / 2
        to_camera = torch.nn.functional.normalize(cameras.c2w[0, view, :3, 3] - points, dim=1)
        facing = (to_camera * normals).sum(dim=1).clamp(min=0)
        grid = torch.stack([column / cameras.width, row / cameras.height], dim=1) * 2 - 1
        layers = torch.cat([views.rgb[view], views.alpha[view], views.depth[view]])
        rgb, alpha, depth = _sample(layers, grid).split([3, 1, 1], dim=1)
        visible = (alpha[:, 0] > COVERED) & (depth[:, 0] > z - DEPTH_SLACK) & (grid.abs() < 1).all(dim=1)
        share = (facing**SHARPNESS * visible)[:, None]
        total += share * rgb
        weight += share
    return total / weight.clamp(min=1e-12), weight[:, 0] > 1e-4


def _sample(layers: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples [N,C] of images [C,H,W] at `grid` [N,2]; -1 and 1 are the image's edges."""
    samples = torch.nn.functional.grid_sample(layers[None], grid[None, None], align_corners=False)
    return samples[0, :, 0].T


def _spread(image: Floats, valid: NDArray[np.bool_]) -> Floats:
    """Fill invalid texels with the color of the nearest valid one."""
    from scipy.ndimage import distance_transform_edt

    if not valid.any():
        return image
    rows, columns = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    spread: Floats = image[rows, columns]
    return spread
