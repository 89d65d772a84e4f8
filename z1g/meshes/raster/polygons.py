"""Triangulation of polygons."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def triangulated(vertices: Array, corners: Array, sizes: Array) -> tuple[Array, Array]:
    """Triangles [T,3] as positions in `corners`, and the polygon that each belongs to.

    vertices: [N,3]. corners: [K] vertex of each corner of all polygons. sizes: corners of each polygon; polygons with
    fewer than three are left out. Convex polygons become fans; others are cut ear by ear.
    """
    starts = np.cumsum(sizes) - sizes
    triangles, owners = [], []
    for size in np.unique(sizes[sizes > 2]):
        polygons = np.flatnonzero(sizes == size)
        loops = starts[polygons, None] + np.arange(size)
        convex = _convex(vertices[corners[loops]])
        fan = np.stack([np.zeros(size - 2, int), np.arange(1, size - 1), np.arange(2, size)], axis=1)
        triangles.append(loops[convex][:, fan].reshape(-1, 3))
        owners.append(np.repeat(polygons[convex], size - 2))
        for polygon, loop in zip(polygons[~convex], loops[~convex], strict=True):
            ears = loop[_ears(vertices[corners[loop]])]
            triangles.append(ears)
            owners.append(np.full(len(ears), polygon))
    if not triangles:
        return np.zeros((0, 3), np.int64), np.zeros(0, np.int64)
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return np.concatenate(triangles)[order], owner[order]


def _convex(points: Array) -> Array:
    """Whether each polygon [P,K,3] turns the same way at all of its corners."""
    if points.shape[1] == 3:
        return np.ones(len(points), bool)
    sides = np.roll(points, -1, axis=1) - points
    turns = np.cross(np.roll(sides, 1, axis=1), sides)
    normal = _newell(points)
    signed = (turns * normal[:, None]).sum(axis=-1)
    convex: Array = (signed >= -1e-9 * np.abs(signed).max(axis=1, keepdims=True, initial=0)).all(axis=1)
    return convex


def _newell(points: Array) -> Array:
    """Normals [P,3] of polygons [P,K,3], not of unit length (Newell's method; Sutherland et al., 1974)."""
    centered = points - points.mean(axis=1, keepdims=True)
    normals: Array = np.cross(centered, np.roll(centered, -1, axis=1)).sum(axis=1)
    return normals


def _ears(points: Array) -> Array:
    """Triangles of a simple polygon [K,3], by ear clipping (Meisters, 1975) in the plane of its normal."""
    normal = _newell(points[None])[0]
    drop = int(np.abs(normal).argmax())
    flat = np.delete(points, drop, axis=1) * (1.0 if normal[drop] * (-1) ** drop > 0 else np.array([-1.0, 1.0]))
    rest, triangles = list(range(len(points))), []
    while len(rest) > 3:
        ear = next((i for i in range(len(rest)) if _is_ear(flat, rest, i)), 0)
        triangles.append((rest[ear - 1], rest[ear], rest[(ear + 1) % len(rest)]))
        del rest[ear]
    return np.array([*triangles, tuple(rest)], np.int64)


def _is_ear(flat: Array, rest: list[int], i: int) -> bool:
    a, b, c = flat[rest[i - 1]], flat[rest[i]], flat[rest[(i + 1) % len(rest)]]
    if _side(a, b, c) <= 0:
        return False
    others = flat[[index for index in rest if index not in (rest[i - 1], rest[i], rest[(i + 1) % len(rest)])]]
    inside = (_side(a, b, others) >= 0) & (_side(b, c, others) >= 0) & (_side(c, a, others) >= 0)
    return not inside.any()


def _side(a: Array, b: Array, p: Array) -> Array:
    """Positive where p is left of the line from a to b; points [...,2]."""
    side: Array = (b[0] - a[0]) * (p[..., 1] - a[1]) - (b[1] - a[1]) * (p[..., 0] - a[0])
    return side
