"""Reads a mesh file of any format that needs no conversion."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from z1g.meshes.raster.ac3d import read_ac3d
from z1g.meshes.raster.g3d import read_g3d
from z1g.meshes.raster.gltf import MOST, read_gltf
from z1g.meshes.raster.md2 import read_md2
from z1g.meshes.raster.obj import read_obj
from z1g.meshes.raster.plain import read_plain
from z1g.meshes.raster.pmd import read_pmd
from z1g.meshes.raster.scene import MeshError, Part, require_few

READERS: dict[str, Callable[[Path], list[Part]]] = {
    ".obj": read_obj,
    ".glb": read_gltf,
    ".gltf": read_gltf,
    ".ply": read_plain,
    ".stl": read_plain,
    ".ac": read_ac3d,
    ".md2": read_md2,
    ".g3d": read_g3d,
    ".pmd": read_pmd,
}
UP_AXIS: dict[str, Literal["y", "z"]] = {".ply": "z", ".stl": "z", ".md2": "z"}
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
