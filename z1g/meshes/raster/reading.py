"""Reads a mesh file of any format that needs no conversion."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from z1g.meshes.raster.gltf import MOST, read_gltf
from z1g.meshes.raster.obj import read_obj
from z1g.meshes.raster.plain import read_plain
from z1g.meshes.raster.scene import MeshError, Part, require_few

READERS: dict[str, Callable[[Path], list[Part]]] = {
    ".obj": read_obj,
    ".glb": read_gltf,
    ".gltf": read_gltf,
    ".ply": read_plain,
    ".stl": read_plain,
}
UP_AXIS: dict[str, Literal["y", "z"]] = {".ply": "z", ".stl": "z"}
"""Formats that are z-up by convention; others are y-up or specify their axes."""


def read_mesh(path: Path, limit: int = MOST) -> tuple[list[Part], Literal["y", "z"]]:
    """The parts of a mesh file, in its own coordinates, and its up axis.

    Raises MeshError, also for more than `limit` triangles.
    """
    ending = path.suffix.lower()
    if ending not in READERS:
        raise MeshError(f"{ending} files need Blender")
    parts = read_gltf(path, limit) if ending in (".glb", ".gltf") else READERS[ending](path)
    require_few(sum(len(part.triangles) for part in parts), limit)
    return parts, UP_AXIS.get(ending, "y")
