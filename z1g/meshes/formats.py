"""File formats of meshes and of archives of meshes."""

from pathlib import Path

FORMATS = (".obj", ".glb", ".gltf", ".ply", ".stl", ".fbx", ".usd", ".usda", ".usdc", ".usdz", ".blend")
ARCHIVES = (".zip", ".sh3f")
READABLE = f"{', '.join(FORMATS)} and these in {' or '.join(ARCHIVES)}"


def is_mesh(path: Path) -> bool:
    """Whether a path has the extension of a mesh format."""
    return path.suffix.lower() in FORMATS


def is_archive(path: Path) -> bool:
    """Whether a path has the extension of an archive of meshes."""
    return path.suffix.lower() in ARCHIVES
