"""Bounds of the imported surface, and its normalization into the sphere of radius 0.5."""

from dataclasses import dataclass

import bpy  # type: ignore[import-not-found,unused-ignore]
import numpy as np
from faults import MeshError
from mathutils import Matrix  # type: ignore[import-not-found,unused-ignore]
from numpy.typing import NDArray

FLAT = 1e-4
"""A mesh counts as flat if its smallest extent is below this fraction of its largest."""
SIZES = (1e-12, 1e12)
"""Smallest and largest extent of a mesh; outside, squared coordinates leave the range of float32 and renders are blank.
"""
UP_AXIS = {".ply": "z", ".stl": "z", ".blend": "z"}
"""Formats that are z-up, by definition (.blend) or convention; other formats are y-up or specify their axes."""


@dataclass(frozen=True)
class Normalization:
    """p_z1g = (p - center) * scale, where p is a point of the file in a y-up world.

    `center` is the center of the bounding box of all vertices that a face uses; `scale` moves the farthest of them to
    distance 0.5. `up_axis` is the up axis of the file: "y": p has the file's coordinates (.fbx and .usd, which specify
    their axes and units: after Blender's conversion to y-up and meters); "z": p = (x, z, -y) of the file's (x, y, z).
    """

    center: tuple[float, float, float]
    scale: float
    up_axis: str


def surface() -> tuple[NDArray[np.float64], int]:
    """Points [N,3] (Blender's z-up world) that faces use, and the number of triangles. Raises MeshError."""
    points, n_triangles, graph = [], 0, bpy.context.evaluated_depsgraph_get()
    for instance in graph.object_instances:
        if instance.object.type != "MESH" or not instance.show_self:
            continue
        mesh = instance.object.data
        positions = np.empty(3 * len(mesh.vertices), np.float32)
        mesh.vertices.foreach_get("co", positions)
        corners = np.empty(len(mesh.loops), np.int32)
        mesh.loops.foreach_get("vertex_index", corners)
        n_triangles += len(mesh.loops) - 2 * len(mesh.polygons)
        world = np.array(instance.matrix_world)
        used = positions.reshape(-1, 3)[np.unique(corners)].astype(np.float64)
        points.append(used @ world[:3, :3].T + world[:3, 3])
    if not n_triangles:
        raise MeshError("the mesh has no faces; the file is empty or truncated")
    if not all(np.isfinite(part).all() for part in points):
        raise MeshError("the mesh has vertices that are not finite numbers (NaN or infinity)")
    return np.concatenate(points), n_triangles


def normalize(points: NDArray[np.float64], up_axis: str) -> tuple[Normalization, NDArray[np.float64]]:
    """Move and scale the scene into the sphere of radius 0.5 at the origin, centered on its bounding box.

    Also returns the normalized points [N,3]. Raises MeshError for flat, tiny and huge meshes.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    extent = high - low
    if extent.max() == 0:
        raise MeshError("the mesh is a single point: its bounding box has no size")
    if not SIZES[0] <= extent.max() <= SIZES[1]:
        raise MeshError(f"the mesh is {extent.max():.3g} units large; {SIZES[0]:g} to {SIZES[1]:g} can be rendered")
    if extent.min() < FLAT * extent.max():
        raise MeshError(f"the mesh is flat: its bounding box is {' x '.join(f'{side:.4g}' for side in extent)}")
    center = (low + high) / 2
    scale = 0.5 / float(np.linalg.norm(points - center, axis=1).max())
    pivot = bpy.data.objects.new("normalization", None)
    for item in bpy.context.scene.objects:
        if item.parent is None:
            item.parent = pivot
    bpy.context.scene.collection.objects.link(pivot)
    pivot.matrix_world = Matrix.Scale(scale, 4) @ Matrix.Translation(-center)
    x, y, z = center.tolist()
    return Normalization((x, z, -y), scale, up_axis), (points - center) * scale
