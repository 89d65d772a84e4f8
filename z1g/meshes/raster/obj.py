"""Reader of Wavefront OBJ files: polygons with image coordinates, normals and materials."""

from codecs import BOM_UTF8
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.raster.colors import to_linear
from z1g.meshes.raster.materials import Surface, read_materials
from z1g.meshes.raster.polygons import triangulated
from z1g.meshes.raster.scene import GRAY, Material, MeshError, Part

Array = NDArray[Any]
ABSENT = -1


@dataclass
class _Lines:
    """Numbers of the lines by kind, and of each face its corners, material and what came before it."""

    vertices: list[bytes] = field(default_factory=list)
    uv: list[bytes] = field(default_factory=list)
    normals: list[bytes] = field(default_factory=list)
    faces: list[bytes] = field(default_factory=list)
    materials: list[int] = field(default_factory=list)
    before: list[tuple[int, int, int]] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    libraries: list[str] = field(default_factory=list)


def read_obj(path: Path) -> list[Part]:
    """All faces, one part for each material. Raises MeshError for damaged files and missing materials."""
    try:
        lines = _lines(path.read_bytes())
        vertices, colors = _vertices(lines.vertices)
        uv, normals = _table(lines.uv, 2), _table(lines.normals, 3)
        corners, sizes = _corners(lines, (len(vertices), len(uv), len(normals)))
    except (ValueError, IndexError) as error:
        raise MeshError(f"the file is damaged: {error}") from error
    triangles, face = triangulated(vertices, corners[:, 0], sizes)
    surfaces = _surfaces(path, lines)
    chosen = np.array(lines.materials, np.int64)[face] if len(face) else np.zeros(0, np.int64)
    return [
        _part(vertices, colors, uv, normals, corners[triangles[chosen == index]], surface)
        for index, surface in surfaces.items()
        if (chosen == index).any()
    ]


def _lines(content: bytes) -> _Lines:
    lines = _Lines()
    material = lines.names.setdefault("", 0)
    for line in content.removeprefix(BOM_UTF8).replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").splitlines():
        word, _, rest = line.strip().partition(b" ")
        if word == b"v":
            lines.vertices.append(rest)
        elif word == b"vt":
            lines.uv.append(rest)
        elif word == b"vn":
            lines.normals.append(rest)
        elif word == b"f":
            lines.faces.append(rest)
            lines.materials.append(material)
            lines.before.append((len(lines.vertices), len(lines.uv), len(lines.normals)))
        elif word == b"usemtl":
            material = lines.names.setdefault(_text(rest), len(lines.names))
        elif word == b"mtllib":
            lines.libraries.append(_text(rest).strip('"'))
    return lines


def _text(content: bytes) -> str:
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        return content.decode("latin-1").strip()


def _vertices(lines: Sequence[bytes]) -> tuple[Array, Array | None]:
    """Positions [N,3], and colors [N,4] if all lines have them (linear; a widespread extension, in sRGB)."""
    values = [line.split() for line in lines]
    if any(len(numbers) < 3 for numbers in values):
        raise ValueError("a vertex has fewer than three coordinates")
    colored = bool(values) and all(len(numbers) in (6, 7) for numbers in values)
    positions = np.array([numbers[:3] for numbers in values], np.float64).reshape(-1, 3)
    if not colored:
        return positions, None
    colors = to_linear(np.array([numbers[3:6] for numbers in values], np.float64))
    return positions, np.column_stack([colors, np.ones(len(colors))])


def _table(lines: Sequence[bytes], width: int) -> Array:
    rows = [(line.split() + [b"0"] * width)[:width] for line in lines]
    return np.array(rows, np.float64).reshape(-1, width)


def _corners(lines: _Lines, available: tuple[int, int, int]) -> tuple[Array, Array]:
    """Indices of position, uv and normal [K,3] of all corners of all faces, ABSENT where there is none, and the number
    of corners of each face.
    """
    words = [face.split() for face in lines.faces]
    sizes = np.array([len(face) for face in words], np.int64)
    fields = [[*corner.split(b"/"), b"", b""][:3] for face in words for corner in face]
    corners = np.array([[int(index) if index else 0 for index in corner] for corner in fields], np.int64).reshape(-1, 3)
    before = np.repeat(np.array(lines.before, np.int64).reshape(-1, 3), sizes, axis=0)
    absolute = np.where(corners > 0, corners - 1, np.where(corners < 0, before + corners, ABSENT))
    if ((absolute >= np.array(available)) | ((corners < 0) & (absolute < 0))).any() or (absolute[:, 0] < 0).any():
        raise ValueError("a face refers to a vertex that does not exist")
    return absolute, sizes


def _surfaces(path: Path, lines: _Lines) -> dict[int, Surface]:
    """The surface of each material in use. Raises MeshError if the file's libraries do not have it."""
    library: dict[str, Surface] = {}
    files = [path.parent / name.replace("\\", "/") for name in lines.libraries]
    # Blender also tries the library with the name of the mesh.
    for file in files if any(file.is_file() for file in files) else [path.with_suffix(".mtl")]:
        if file.is_file():
            library |= read_materials(file)
    return {index: library.get(name, Surface(GRAY)) for name, index in lines.names.items()}


def _part(vertices: Array, colors: Array | None, uv: Array, normals: Array, corners: Array, surface: Surface) -> Part:
    """A part of the triangles with corners [T,3,3]. Equal corners become one vertex."""
    unique, inverse = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    triangles = inverse.reshape(-1, 3)
    has_uv, has_normals = (len(unique) > 0 and bool((unique[:, i] != ABSENT).all()) for i in (1, 2))
    placed = None
    if has_uv:
        # OBJ counts v from the bottom.
        placed = uv[unique[:, 1]] * surface.scale + surface.offset
        placed[:, 1] = 1 - placed[:, 1]
    elif surface.material.texture is not None:
        placed = np.tile([0.0, 1.0], (len(unique), 1))
    shown = colors[unique[:, 0]] if colors is not None and surface.material is GRAY else None
    material = Material() if shown is not None else surface.material
    return Part(
        vertices[unique[:, 0]], triangles, normals[unique[:, 2]] if has_normals else None, placed, shown, material
    )
