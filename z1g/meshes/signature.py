"""Signatures of shapes that are the same whatever an object's size, textures and direction around the vertical."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.raster.reading import read_mesh
from z1g.meshes.raster.scene import MeshError

Array = NDArray[np.float64]
POINTS = 16384
PAIRS = 4
"""Distances are taken between each point and so many others."""
D2, PROFILE = 64, 32
"""Quantiles of distances, and of heights and of radii."""
SEED = 0
STEPS = (0.7548776662466927, 0.5698402909980532)
"""Steps of a sequence with low discrepancy in the unit square: powers of the inverse of the plastic number."""


@dataclass(frozen=True)
class Signature:
    """`quantiles` [D2 + 2·PROFILE] of distances, heights and radii, in units of the object's size, and `triangles`."""

    quantiles: Array
    triangles: int


def signature_of(path: Path) -> Signature:
    """The signature of a mesh file. Raises MeshError if the file cannot be read without Blender or has no area."""
    parts, up_axis = read_mesh(path)
    corners = [part.positions[part.triangles] for part in parts if len(part.triangles)]
    if not corners:
        raise MeshError("the mesh has no faces")
    triangles = np.concatenate(corners).astype(np.float64)
    return shape_signature(triangles if up_axis == "y" else triangles[..., [0, 2, 1]] * np.array([1.0, 1.0, -1.0]))


def shape_signature(triangles: Array) -> Signature:
    """The signature of triangles [T,3,3] in a y-up world. Raises MeshError if they are not finite or have no area.

    Quantiles of three quantities of points that are uniform on the surface: the distance between two of them (D2 of
    Osada et al., ACM TOG 2002), the height above the surface's centroid, and the distance from the vertical through it.
    The unit is the root mean square distance from the centroid.
    """
    points = _points(triangles)
    points = points - points.mean(axis=0)
    points /= np.sqrt((points**2).sum(axis=1).mean())
    draw = np.random.default_rng(SEED)
    others = np.concatenate([draw.permutation(len(points)) for _ in range(PAIRS)])
    distances = np.linalg.norm(np.tile(points, (PAIRS, 1)) - points[others], axis=1)
    radii = np.hypot(points[:, 0], points[:, 2])
    parts = ((distances, D2), (points[:, 1], PROFILE), (radii, PROFILE))
    quantiles = [np.quantile(values, (np.arange(n) + 0.5) / n) for values, n in parts]
    return Signature(np.concatenate(quantiles), len(triangles))


def _points(triangles: Array) -> Array:
    """Points [POINTS,3], uniform by area. They follow the order of the triangles, with equal steps of area between
    them: a mesh that was scaled, turned or colored anew has the same points.
    """
    if not np.isfinite(triangles).all():
        raise MeshError("the mesh has vertices that are not finite numbers (NaN or infinity)")
    size = float(np.ptp(triangles.reshape(-1, 3), axis=0).max())
    if not size > 0:
        raise MeshError("the mesh is a single point")
    a, b, c = ((triangles[:, i] - triangles[0, 0]) / size for i in range(3))
    reached = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    if not reached[-1] > 0:
        raise MeshError("none of its faces has an area")
    chosen = np.searchsorted(reached, (np.arange(POINTS) + 0.5) / POINTS * reached[-1])
    chosen = np.minimum(chosen, len(triangles) - 1)
    even = (np.arange(POINTS)[:, None] + 0.5) * np.array(STEPS) % 1
    root, along = np.sqrt(even[:, :1]), even[:, 1:]
    points: Array = (1 - root) * a[chosen] + root * (1 - along) * b[chosen] + root * along * c[chosen]
    return points


def shape_distance(first: Array, second: Array) -> Array:
    """Distances [N,M] between quantiles [N,Q] and [M,Q]: their mean absolute difference, the mean of the Wasserstein
    distances of the three distributions weighted by their numbers of quantiles.
    """
    from scipy.spatial.distance import cdist

    distances: Array = cdist(first, second, "cityblock") / first.shape[1]
    return distances
