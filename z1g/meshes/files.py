"""Mesh files as files: which there are, what to call them, what is wrong with them before anyone renders them."""

import glob
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from z1g.data.manifest import ObjectEntry, unique_ids
from z1g.errors import UserError
from z1g.meshes.finite import all_finite

FORMATS = (".obj", ".glb", ".gltf", ".ply", ".stl", ".fbx")
_LICENCE = re.compile("licen[sc]e", re.IGNORECASE)


def find_meshes(paths: Sequence[str]) -> list[ObjectEntry]:
    """Objects below folders, behind globs and in single files, sorted by id. Raises UserError where there are none."""
    files = sorted({file for path in paths for file in _expand(path)})
    names = _distinct_names(files)
    entries = [ObjectEntry(name, file.as_posix()) for name, file in zip(unique_ids(names), files, strict=True)]
    return sorted(entries, key=lambda entry: entry.id)


class Unusable(Exception):
    """An object's files cannot be rendered, with a reason that a person understands."""


def prepare(source: str, folder: Path) -> Path:
    """The mesh file to render; what has to be unpacked for it lies below `folder` afterwards. Raises Unusable."""
    path = Path(source)
    reason = problem(path)
    if reason is not None:
        raise Unusable(reason)
    return path


def problem(path: Path) -> str | None:
    """What keeps a mesh file from being rendered, as far as its bytes tell without Blender; None where nothing does.

    These are the faults that Blender passes over without a word: it reads NaN as 0 and draws lost materials grey.
    """
    try:
        if path.stat().st_size == 0:
            return f"{path} is an empty file"
        if not all_finite(path):
            return "the mesh has vertices that are not finite numbers (NaN or infinity)"
        return _missing_materials(path) if path.suffix.lower() == ".obj" else None
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def sha256(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def licences(path: Path) -> list[str]:
    """Names of the licence files beside a mesh."""
    return sorted(file.name for file in path.parent.iterdir() if _LICENCE.search(file.name))


def _expand(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        found = [file for file in path.rglob("*") if _is_mesh(file, path)]
        hint = f"the folder holds no mesh; z1g reads {', '.join(FORMATS)}"
    elif path.is_file():
        found = [path] if path.suffix.lower() in FORMATS else []
        hint = f"not a mesh file; z1g reads {', '.join(FORMATS)}"
    elif glob.has_magic(text):
        found = [Path(name) for name in glob.glob(text, recursive=True) if _is_mesh(Path(name), Path())]
        hint = f"the pattern matches no mesh in {Path.cwd()}; z1g reads {', '.join(FORMATS)}"
    else:
        found, hint = [], f"no such file or folder (looked from {Path.cwd()}); correct data.paths"
    if not found:
        raise UserError(f"data.paths: {text}: {hint}")
    return found


def _is_mesh(file: Path, root: Path) -> bool:
    """Hidden files are none: archives made on macOS carry a `._crate.obj` for every `crate.obj`."""
    below = file.relative_to(root).parts if file.is_relative_to(root) else (file.name,)
    return file.suffix.lower() in FORMATS and not any(part.startswith(".") for part in below) and file.is_file()


def _distinct_names(files: Sequence[Path]) -> list[str]:
    """The stem; with its folder where stems repeat; the whole path where even that repeats."""
    spellings = (lambda file: f"{file.parent.name}_{file.stem}", lambda file: file.as_posix())
    names = [file.stem for file in files]
    for spell in spellings:
        count = Counter(names)
        names = [spell(file) if count[name] > 1 else name for name, file in zip(names, files, strict=True)]
    return names


def _missing_materials(path: Path) -> str | None:
    with path.open("rb") as stream:
        lines = [line[7:] for line in stream if line.startswith(b"mtllib ")]
    libraries = [line.decode("utf-8", errors="replace").strip().strip('"') for line in lines]
    there = [name for name in libraries if (path.parent / name.replace("\\", "/")).is_file()]
    # Blender also tries the material file that is named like the mesh.
    if libraries and not there and not path.with_suffix(".mtl").is_file():
        return f"material file missing: {', '.join(libraries)}"
    return None
