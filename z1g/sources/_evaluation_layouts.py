"""Where published evaluation sets have their meshes, as their authors' documentation and tools say."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from z1g.core.errors import UserError
from z1g.core.files import read_bytes

SetName = Literal["gso", "toys4k", "omniobject3d", "objaverse_lvis"]
LVIS = "lvis-annotations.json.gz"
LARGEST_LVIS = 256 * 2**20
"""Size limit of the unpacked annotations, bytes."""
SOURCES: dict[SetName, str] = {
    "gso": "research.google/blog/scanned-objects-by-google-research; models for Gazebo: <name>/meshes/model.obj with "
    "<name>/materials/textures/texture.png",
    "toys4k": "github.com/rehg-lab/lowshot-shapebias@b1da61e toys4k/: <category>/<category>_<number>/<name>.blend, or "
    ".obj without materials",
    "omniobject3d": "github.com/omniobject3d/OmniObject3D@043fb60: raw_scans/<category>/<object>/Scan/Scan.obj",
    "objaverse_lvis": "github.com/allenai/objaverse-xl@08d12f4 objaverse/__init__.py: glbs/<folder>/<uid>.glb and "
    "lvis-annotations.json.gz, which has uids by category",
}

UP_AXES: dict[SetName, tuple[Literal["file", "z"], str]] = {
    "gso": (
        "z",
        "models for Gazebo, whose world is z-up; of the vertices of 3D_Dollhouse_Refrigerator/model.obj in "
        "github.com/kevinzakka/mujoco_scanned_objects@3783d45, those read span 8 cm of x, 7 cm of y, and z from 0 "
        "to 13 cm",
    ),
    "toys4k": (
        "file",
        "github.com/rehg-lab/lowshot-shapebias@b1da61e toys4k/renderer: utils.py turns what is in .blend files from "
        "z-up to y-up, generate.py turns it about y; unknown of the .obj files",
    ),
    "omniobject3d": (
        "file",
        "github.com/omniobject3d/OmniObject3D@149a6dc tools/render_blender.py imports Scan.obj with Blender's default, "
        "y-up, and renders it from above",
    ),
    "objaverse_lvis": ("file", "glTF 2.0, 3.4: +Y is up"),
}
"""The up axis of each set, `file` being that of the format, and how it is known."""

Item = tuple[Path, str, str]
"""A mesh, its name and its category."""


def items(name: SetName, root: Path) -> list[Item]:
    """All meshes of a set, sorted by path. Raises UserError if the folder does not have the set's layout."""
    found = sorted(_LAYOUTS[name](root))
    if not found:
        raise UserError(f"data.root: {root} is no folder of {name}: expected {SOURCES[name].partition(': ')[2]}")
    return found


def _gso(root: Path) -> Iterator[Item]:
    for mesh in root.glob("*/meshes/model.obj"):
        yield mesh, mesh.parts[-3], ""


def _toys4k(root: Path) -> Iterator[Item]:
    for folder in root.glob("*/*"):
        meshes = sorted([*folder.glob("*.blend"), *folder.glob("*.obj")]) if folder.is_dir() else []
        if meshes:
            yield meshes[0], folder.name, folder.parent.name


def _omniobject3d(root: Path) -> Iterator[Item]:
    scans = root / "raw_scans" if (root / "raw_scans").is_dir() else root
    for mesh in scans.glob("*/*/Scan/Scan.obj"):
        yield mesh, mesh.parts[-3], mesh.parts[-4]


def _objaverse_lvis(root: Path) -> Iterator[Item]:
    categories = _lvis(root / LVIS)
    for mesh in root.glob("glbs/*/*.glb"):
        if mesh.stem in categories:
            yield mesh, mesh.stem, categories[mesh.stem]


def _lvis(path: Path) -> dict[str, str]:
    """Category by uid. Raises UserError if the file is missing or damaged."""
    try:
        unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
        text = unpack.decompress(read_bytes(path), LARGEST_LVIS)
        annotations = json.loads(text)
        return {str(uid): str(category) for category, uids in annotations.items() for uid in uids}
    except (OSError, ValueError, zlib.error, gzip.BadGzipFile, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"data.root: {path} cannot be read as LVIS annotations: {error}") from error


_LAYOUTS = {"gso": _gso, "toys4k": _toys4k, "omniobject3d": _omniobject3d, "objaverse_lvis": _objaverse_lvis}
