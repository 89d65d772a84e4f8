"""Vertices that are equal become one, and meshes are told apart by their geometry."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.raster.scene import Part

GRID = 1000
"""Steps along the largest side of a mesh; vertices nearer than one are in the same place for `geometry_digest`."""


def welded(part: Part) -> Part:
    """A part in which corners of equal position, texture coordinates and color (float32) share a vertex.

    Triangles without three different vertices are left out, and so are normals.
    """
    columns = [part.positions]
    columns += [values for values in (part.uv, part.color) if values is not None]
    used = part.triangles.reshape(-1)
    rows = np.ascontiguousarray(np.concatenate(columns, axis=1).astype(np.float32)[used])
    # Adding 0 makes -0 and 0 equal.
    keys = (rows + 0).view([("", np.void, rows.itemsize * rows.shape[1])])[:, 0]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    triangles = place[inverse].reshape(-1, 3)
    a, b, c = triangles.T
    triangles = triangles[(a != b) & (b != c) & (c != a)]
    kept = used[first[order]]
    uv, color = (None if values is None else values[kept] for values in (part.uv, part.color))
    return replace(part, positions=part.positions[kept], triangles=triangles, normals=None, uv=uv, color=color)


def merged(parts: Sequence[Part]) -> list[Part]:
    """Parts of the same material as one, in the order of materials; parts without faces are left out."""
    groups: dict[tuple[Any, ...], list[Part]] = {}
    for part in parts:
        if len(part.triangles):
            material = part.material
            key = (material.factor, id(material.texture), material.alpha_mode, material.cutoff, part.uv is None,
                   part.color is None)  # fmt: skip
            groups.setdefault(key, []).append(part)
    return [_joined(group) for group in groups.values()]


def _joined(parts: list[Part]) -> Part:
    starts = np.cumsum([0, *(len(part.positions) for part in parts)])
    triangles = np.concatenate([part.triangles + start for part, start in zip(parts, starts, strict=False)])

    def together(values: list[NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
        return None if values[0] is None else np.concatenate([item for item in values if item is not None])

    return Part(np.concatenate([part.positions for part in parts]), triangles, None, together([p.uv for p in parts]),
                together([p.color for p in parts]), parts[0].material)  # fmt: skip


def geometry_digest(parts: Sequence[Part]) -> str:
    """SHA-256 of the corners of all triangles, centered, scaled and rounded to a thousandth of the mesh's size."""
    corners = np.concatenate([part.positions[part.triangles].reshape(-1, 3) for part in parts])
    low, high = corners.min(axis=0), corners.max(axis=0)
    size = max(float((high - low).max()), 1e-12)
    steps = np.rint((corners - (low + high) / 2) * (GRID / size)).astype(np.int16)
    triangles = np.ascontiguousarray(steps).reshape(-1, 9)
    # The order of parts and faces is no property of the shape.
    order = np.lexsort(triangles.T)
    return hashlib.sha256(np.ascontiguousarray(triangles[order]).tobytes()).hexdigest()
