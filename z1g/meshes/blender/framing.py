"""Camera placement, and the part of the image to render."""

from typing import Any

import bpy  # type: ignore[import-not-found,unused-ignore]
import numpy as np
from mathutils import Matrix  # type: ignore[import-not-found,unused-ignore]
from numpy.typing import NDArray

MARGIN = 3
"""Pixels around the object; the pixel filter has a radius of 0.75 pixels."""
WITHIN_VERTICES = {"MESH", "EMPTY", "ARMATURE", "LATTICE"}
"""Object types that are bounded by mesh vertices or not rendered at all: not curves, hair, points and volumes."""


def vertices_bound_everything() -> bool:
    """Whether everything that is rendered is inside the convex hull of the vertices that faces use."""
    displaced = any(material.displacement_method != "BUMP" for material in bpy.data.materials)
    objects = [instance.object for instance in bpy.context.evaluated_depsgraph_get().object_instances]
    return not displaced and all(item.type in WITHIN_VERTICES and not item.particle_systems for item in objects)


def aim(c2w: Any, points: NDArray[np.float64] | None) -> None:
    """Place the camera at `c2w` and restrict rendering to the bounding rectangle of `points` [N,3]; None: no limit.

    Outside the rectangle the image is transparent with or without the limit; inside it the bits are the same.
    """
    scene = bpy.context.scene
    scene.camera.matrix_world = Matrix(c2w)
    box = None if points is None else _box(np.array(c2w), points)
    render = scene.render
    render.use_border = box is not None
    if box is not None:
        render.border_min_x, render.border_min_y, render.border_max_x, render.border_max_y = box


def _box(c2w: NDArray[np.float64], points: NDArray[np.float64]) -> list[float] | None:
    """Left, bottom, right and top of the points as fractions of the image; None if a point is behind the camera."""
    render, lens = bpy.context.scene.render, bpy.context.scene.camera.data
    local = c2w[:3, :3].T @ (points.T - c2w[:3, 3:])
    depth = -local[2]
    if depth.min() < lens.clip_start:
        return None
    size = render.resolution_x
    pixels = size * (0.5 + local[:2] / depth / (2 * np.tan(lens.angle / 2)))
    low, high = np.floor(pixels.min(axis=1)) - MARGIN, np.ceil(pixels.max(axis=1)) + MARGIN
    # Blender truncates border times resolution to whole pixels; half a pixel is safe from rounding errors.
    return ((np.concatenate([low, high]).clip(0, size) + 0.5) / size).clip(0, 1).tolist()
