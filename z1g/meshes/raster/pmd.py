"""Reader of PMD files (0 A.D.'s Pyrogenesis): one mesh without materials, its bones, and where props are attached.

Layout: the comments of the engine's source code (graphics/ModelDef.cpp), versions 1 to 4. The format is left-handed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.raster.binary import Cursor, checked
from z1g.meshes.raster.scene import GRAY, MeshError, Part

MAGIC = b"PSMD"
MOST_SETS = 16
NO_BONE = 255
SKINNING = 20
"""Bytes of a vertex for the bones that move it."""


@dataclass(frozen=True, eq=False)
class Prop:
    """Where another mesh is attached: transform [4,4] to the bone, or to the mesh if `bone` is None."""

    transform: NDArray[np.float64]
    bone: int | None


@dataclass(frozen=True, eq=False)
class Pmd:
    """A mesh in left-handed coordinates: positions [N,3], normals [N,3], uv [N,2] (origin at the image's top left),
    triangles [T,3], the bones' transforms [4,4] to the mesh, and attachment points by name.
    """

    positions: NDArray[np.float64]
    normals: NDArray[np.float64]
    uv: NDArray[np.float64]
    triangles: NDArray[np.int64]
    bones: list[NDArray[np.float64]]
    props: dict[str, Prop]


def read_pmd(path: Path) -> list[Part]:
    """All triangles, gray, as the format has no materials. Raises MeshError for damaged files."""
    mesh = parse_pmd(path.read_bytes())
    return [right_handed(Part(mesh.positions, mesh.triangles, mesh.normals, None, None, GRAY))]


def right_handed(part: Part) -> Part:
    """A part of a left-handed world, with z turned round. Faces keep their corners' order, which is clockwise there."""
    mirror = np.array([1.0, 1.0, -1.0])
    normals = None if part.normals is None else part.normals * mirror
    return Part(part.positions * mirror, part.triangles, normals, part.uv, part.color, part.material)


def parse_pmd(content: bytes) -> Pmd:
    """All that a file holds. Raises MeshError."""
    cursor = Cursor(content)
    if cursor.bytes(4) != MAGIC:
        raise MeshError("not a PMD file")
    version, _, vertices = cursor.values("3I")
    sets = cursor.count() if version >= 4 else 1
    if not 1 <= sets <= MOST_SETS:
        raise MeshError("the header is damaged, or of an unknown version")
    rows = cursor.array("u1", vertices, 24 + 8 * sets + SKINNING)
    columns = np.ascontiguousarray(rows[:, : 24 + 8 * sets]).view("<f4").astype(np.float64)
    triangles = checked(cursor.array("<u2", cursor.count(), 3), vertices)
    bones = [_transform(cursor) for _ in range(cursor.count())] if version >= 1 else []
    props: dict[str, Prop] = {}
    for _ in range(cursor.count() if version >= 2 else 0):
        name = cursor.text(cursor.count())
        transform, bone = _transform(cursor), cursor.bytes(1)[0]
        props[name] = Prop(transform, None if bone == NO_BONE or bone >= len(bones) else bone)
    # Images are stored with the bottom row first.
    uv = columns[:, 6:8] * (1, -1) + (0, 1)
    return Pmd(columns[:, :3], columns[:, 3:6], uv, triangles, bones, props)


def _transform(cursor: Cursor) -> NDArray[np.float64]:
    """A translation and a rotation (quaternion x, y, z, w) as a matrix [4,4]."""
    values = np.array(cursor.values("7f"), np.float64)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = _rotation(values[3:]), values[:3]
    return matrix


def _rotation(quaternion: NDArray[Any]) -> NDArray[np.float64]:
    x, y, z, w = quaternion / max(float(np.linalg.norm(quaternion)), 1e-9)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
