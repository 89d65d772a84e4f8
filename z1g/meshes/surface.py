"""Sampling points on a rendered object's source mesh, with the normalization of its renders."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from z1g.data.manifest import ObjectEntry
from z1g.data.shards import RenderedObject
from z1g.meshes.files import Unusable, prepare
from z1g.meshes.limits import FileLimits
from z1g.metrics import NotMeasurable

READABLE = (".obj", ".glb", ".ply", ".stl")
TOLERANCE = 2e-3
"""Largest deviation from the bounds that Blender measured, normalized units."""
RADIUS = 0.5


def surface_points(
    item: RenderedObject, entry: ObjectEntry, limits: FileLimits, n: int, roots: Sequence[str] = ()
) -> NDArray[np.float64]:
    """Sample `n` points [n,3] uniformly by area, seeded by the object, in the normalized y-up world of the renders.

    Raises NotMeasurable as `surface_triangles` does, and for a mesh without an area.
    """
    return surface_samples(item, entry, limits, n, roots)[0]


def surface_samples(
    item: RenderedObject, entry: ObjectEntry, limits: FileLimits, n: int, roots: Sequence[str] = ()
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points [n,3] of `surface_points`, and the unit normals [n,3] of their faces."""
    triangles = surface_triangles(item, entry, limits, roots)
    points, chosen = _sample(triangles, n, np.random.default_rng(entry.seed))
    edges = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])[chosen]
    return points, edges / np.linalg.norm(edges, axis=1, keepdims=True)


def surface_triangles(
    item: RenderedObject, entry: ObjectEntry, limits: FileLimits, roots: Sequence[str] = ()
) -> NDArray[np.float64]:
    """Corners [T,3,3] of the object's faces in the normalized y-up world of the renders.

    The file is read without Blender and checked against the bounds that Blender measured. Raises NotMeasurable if there
    is no mesh, if it has changed, if only Blender reads its format, or if it is read differently here. roots: as of
    `data.roots`.
    """
    normalization = item.info.get("normalization")
    if normalization is None:
        raise NotMeasurable("its data source has renders only, no mesh")
    ending = Path(entry.source).suffix.lower()
    if ending not in READABLE:
        raise NotMeasurable(f"only Blender reads {ending} files; supported here: {' '.join(READABLE)}")
    with tempfile.TemporaryDirectory(prefix="z1g-surface-") as folder:
        try:
            triangles = _triangles(prepare(entry, Path(folder), limits, roots))
        except Unusable as error:
            raise NotMeasurable(str(error)) from error
    placed = normalized(triangles, normalization)
    _check(placed, entry)
    return placed


def normalized(points: NDArray[np.float64], normalization: dict[str, Any]) -> NDArray[np.float64]:
    """Points [...,3] of the file, normalized as in `z1g/meshes/blender/geometry.py`: (p − center)·scale, y-up."""
    upright = points if normalization["up_axis"] == "y" else points[..., [0, 2, 1]] * np.array([1.0, 1.0, -1.0])
    moved: NDArray[np.float64] = (upright - np.array(normalization["center"])) * normalization["scale"]
    return moved


def _triangles(path: Path) -> NDArray[np.float64]:
    """Corners [T,3,3] of all faces. Opens no other files such as materials and images."""
    import trimesh

    options: dict[str, Any] = {"file_type": path.suffix[1:].lower(), "process": False}
    if path.suffix.lower() == ".obj":
        options |= {"skip_materials": True, "split_objects": False, "group_material": False}
    try:
        with path.open("rb") as stream:
            mesh = trimesh.load_scene(stream, **options).to_mesh()
        corners: NDArray[np.float64] = np.asarray(mesh.vertices, np.float64)[np.asarray(mesh.faces, np.int64)]
    # Parsers raise nearly any exception on damaged files.
    except Exception as error:
        raise NotMeasurable(f"trimesh cannot read it: {type(error).__name__}: {error}") from error
    if not len(corners) or not np.isfinite(corners).all():
        raise NotMeasurable("trimesh finds no finite face in it")
    return corners


def _check(placed: NDArray[np.float64], entry: ObjectEntry) -> None:
    points = placed.reshape(-1, 3)
    center = (points.min(axis=0) + points.max(axis=0)) / 2
    reach = float(np.linalg.norm(points - center, axis=1).max())
    if np.abs(center).max() > TOLERANCE or abs(reach - RADIUS) > TOLERANCE:
        raise NotMeasurable(
            f"{Path(entry.source).name} is read differently without Blender: its center is {np.abs(center).max():.3g} "
            f"from the origin and its radius is {reach:.3g} instead of {RADIUS}"
        )


def _sample(
    triangles: NDArray[np.float64], n: int, draw: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points distributed uniformly by area (Osada et al., ACM TOG 2002, equation 1), and the faces that they are on."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not area.sum() > 0:
        raise NotMeasurable("none of its faces has an area")
    chosen = draw.choice(len(triangles), size=n, p=area / area.sum())
    root, along = np.sqrt(draw.random((n, 1))), draw.random((n, 1))
    points: NDArray[np.float64] = (1 - root) * a[chosen] + root * (1 - along) * b[chosen] + root * along * c[chosen]
    return points, chosen
