"""Which file of a folder belongs to which object, and what is missing, extra, ambiguous or wrongly named."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from z1g.core.errors import UserError
from z1g.core.files import read_bytes
from z1g.core.names import did_you_mean
from z1g.gaussians import ply_table

SPLATS, MESHES = (".ply", ".splat", ".spz"), (".glb", ".gltf", ".obj", ".ply")
ENDINGS = tuple(dict.fromkeys([*SPLATS, *MESHES]))


@dataclass(frozen=True)
class Listed:
    """Files by object, and problems by object or by file: [(name, reason)]."""

    files: dict[str, Path]
    problems: list[tuple[str, str]] = field(default_factory=list)


def read_list(path: Path, known: Sequence[str]) -> dict[str, str | None]:
    """Ids of a list, each with the name of its file in the folder of outputs if the list gives one.

    A line is an id, or a row of a CSV with the columns `object` and, if files have other names, `file`. Raises
    UserError for a list that cannot be read, is empty, names an object that is not evaluated, or one of two files.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise UserError(f"{path} lists no object")
    wanted: dict[str, str | None] = {}
    if "object" in (head := [word.strip() for word in lines[0].split(",")]):
        rows = csv.DictReader(io.StringIO("\n".join([",".join(head), *lines[1:]])))
        for row in rows:
            name, file = (row["object"] or "").strip(), (row.get("file") or "").strip() or None
            if wanted.setdefault(name, file) != file:
                raise UserError(f"{path}: {name[:80]!r} has two files, {wanted[name]} and {file}; remove a row")
    else:
        wanted = {line.strip(): None for line in lines}
    for name in wanted:
        if name not in known:
            near = did_you_mean(name, list(known))
            raise UserError(f"{path}: {name[:80]!r} is not an evaluated object of these results{near}")
    return wanted


def find_outputs(folder: Path, wanted: dict[str, str | None], others: Sequence[str] = ()) -> Listed:
    """Match files to objects: `<id>.<ending>`, `<id>/<one file>`, or the name that the list gives.

    others: objects that exist but are not wanted. Raises UserError if the folder has no outputs at all.
    """
    visible = (path for path in folder.rglob("*") if not path.name.startswith("."))
    found = sorted(path for path in visible if path.suffix.lower() in ENDINGS and path.is_file())
    if not found:
        raise UserError(f"{folder} has no outputs: no {', '.join(ENDINGS)} file is in it")
    files: dict[str, Path] = {}
    problems: list[tuple[str, str]] = []
    used: set[Path] = set()
    for name, given in wanted.items():
        matches = [folder / given] if given else [path for path in found if _belongs(path, folder, name)]
        used.update(matches)
        if given and (not matches[0].is_file() or not matches[0].resolve().is_relative_to(folder.resolve())):
            problems.append((name, f"missing: the list names {given}, which is not in the folder"))
        elif not matches:
            problems.append((name, f"missing: there is no {name}.ply, .splat, .spz, .glb or .obj"))
        elif len(matches) > 1:
            names = ", ".join(path.relative_to(folder).as_posix() for path in matches[:3])
            problems.append((name, f"ambiguous: it has several files: {names}"))
        else:
            files[name] = matches[0]
    for path in found:
        if path not in used:
            problems.append((path.relative_to(folder).as_posix(), _extra(path, folder, list(wanted), others)))
    return Listed(files, problems)


def is_mesh(path: Path) -> bool:
    """Whether a file has a surface; a `.ply` with Gaussians does not. Raises UserError if it is neither."""
    if path.suffix.lower() != ".ply":
        return path.suffix.lower() in MESHES
    elements = ply_table.contents(path)
    if "opacity" in elements.get("vertex", (0, []))[1]:
        return False
    if elements.get("face", (0, []))[0]:
        return True
    raise UserError(f"{path}: it has neither Gaussians (no property opacity) nor faces")


def _belongs(path: Path, folder: Path, name: str) -> bool:
    parts = path.relative_to(folder).parts
    return path.stem == name if len(parts) == 1 else parts[0] == name


def _extra(path: Path, folder: Path, wanted: Sequence[str], others: Sequence[str]) -> str:
    """Why a file belongs to no object."""
    parts = path.relative_to(folder).parts
    name = path.stem if len(parts) == 1 else parts[0]
    if name in others:
        return "extra: this object is not in the list of evaluated ones"
    return f"wrongly named: no object is called {name[:80]!r}{did_you_mean(name, wanted)}"
