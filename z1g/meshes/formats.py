"""File formats of meshes and of archives of meshes."""

from pathlib import Path

CONVERTED = (".fbx", ".usd", ".usda", ".usdc", ".usdz", ".blend", ".dae")
"""Formats that only Blender reads."""
GAMES = (".ac", ".md2", ".g3d", ".pmd")
"""AC3D, Quake II, Glest and 0 A.D.: read by the rasterizer only."""
FORMATS = (".obj", ".glb", ".gltf", ".ply", ".stl", *CONVERTED, *GAMES)
ARCHIVES = (".zip", ".sh3f")
READABLE = f"{', '.join(FORMATS)} and these in {' or '.join(ARCHIVES)}"


def is_mesh(path: Path) -> bool:
    """Whether a path has the extension of a mesh format."""
    return path.suffix.lower() in FORMATS


def is_archive(path: Path) -> bool:
    """Whether a path has the extension of an archive of meshes."""
    return path.suffix.lower() in ARCHIVES
