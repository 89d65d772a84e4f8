"""The camera, and the part of the image that has to be drawn."""

from typing import Any

import bpy  # type: ignore[import-not-found,unused-ignore]
import numpy as np
from mathutils import Matrix  # type: ignore[import-not-found,unused-ignore]
from numpy.typing import NDArray

MARGIN = 3
"""Pixels around the object: the filter takes samples from within 0.75."""
WITHIN_VERTICES = {"MESH", "EMPTY", "ARMATURE", "LATTICE"}
"""What the vertices of meshes bound, and what is not drawn at all. Curves, hair, points and volumes are not here."""


def vertices_bound_everything() -> bool:
    """Whether all that is drawn lies in the convex hull of the vertices that faces use."""
    displaced = any(material.displacement_method != "BUMP" for material in bpy.data.materials)
    things = [instance.object for instance in bpy.context.evaluated_depsgraph_get().object_instances]
    return not displaced and all(thing.type in WITHIN_VERTICES and not thing.particle_systems for thing in things)


def aim(c2w: Any, points: NDArray[np.float64] | None) -> None:
    """Put the camera at `c2w` and let only the rectangle be drawn that `points` [N,3] can touch; None: all of it.

    Beside the rectangle the image is transparent, as it would be anyway; within it not a bit is different.
    """
    scene = bpy.context.scene
    scene.camera.matrix_world = Matrix(c2w)
    box = None if points is None else _box(np.array(c2w), points)
    render = scene.render
    render.use_border = box is not None
    if box is not None:
        render.border_min_x, render.border_min_y, render.border_max_x, render.border_max_y = box


def _box(c2w: NDArray[np.float64], points: NDArray[np.float64]) -> list[float] | None:
    """Left, bottom, right and top of the points as parts of the image; None where one lies behind the camera."""
    render, lens = bpy.context.scene.render, bpy.context.scene.camera.data
    local = c2w[:3, :3].T @ (points.T - c2w[:3, 3:])
    depth = -local[2]
    if depth.min() < lens.clip_start:
        return None
    size = render.resolution_x
    place = size * (0.5 + local[:2] / depth / (2 * np.tan(lens.angle / 2)))
    low, high = np.floor(place.min(axis=1)) - MARGIN, np.ceil(place.max(axis=1)) + MARGIN
    # Blender cuts the product with the side off to whole pixels; halves survive any rounding.
    return ((np.concatenate([low, high]).clip(0, size) + 0.5) / size).clip(0, 1).tolist()
