"""Reader of PLY and STL files, by trimesh: triangles with vertex colors."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.raster.colors import to_linear
from z1g.meshes.raster.scene import GRAY, Material, MeshError, Part


def read_plain(path: Path) -> list[Part]:
    """All triangles of a file. Raises MeshError if trimesh cannot read it."""
    import trimesh

    try:
        with path.open("rb") as stream:
            scene = trimesh.load_scene(stream, file_type=path.suffix[1:].lower(), process=False)
        meshes = [mesh for mesh in scene.dump() if isinstance(mesh, trimesh.Trimesh)]
        return [_part(mesh) for mesh in meshes if len(mesh.faces)]
    except MemoryError:
        raise
    # Parsers raise nearly any exception on damaged files.
    except Exception as error:
        raise MeshError(f"the file cannot be read: {type(error).__name__}: {error}") from error


def _part(mesh: Any) -> Part:
    positions, triangles = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    color = _color(mesh)
    return Part(positions, triangles, None, None, color, GRAY if color is None else Material())


def _color(mesh: Any) -> NDArray[np.float64] | None:
    """Vertex colors [N,4], linear; files have 8-bit sRGB. Alpha is not read, as in Blender."""
    if mesh.visual.kind != "vertex":
        return None
    srgb = np.asarray(mesh.visual.vertex_colors, np.float64)[:, :3] / 255
    return np.column_stack([to_linear(srgb), np.ones(len(srgb))])
