"""Folders that list the digests of their files, which can be checked wherever the folder is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from z1g.core.errors import UserError
from z1g.core.recorded import file_digest


def files_of(folder: Path) -> list[str]:
    """Files of a folder and its subfolders, without hidden ones."""
    names = (file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file())
    return [name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts)]


def require_listed(
    folder: Path, files: Mapping[str, str], listed_in: str, remedy: str, endings: Collection[str]
) -> None:
    """Raise UserError unless the files of a folder are as they were listed.

    files: their digests by name. listed_in: name of the file with the list, which is not in it. remedy: what the user
    can do, the end of the message. endings: of files that may not be added; others, such as a description, may be.
    """
    added = [name for name in files_of(folder) if name not in files and name != listed_in]
    added = [name for name in added if name.endswith(tuple(endings))]
    lost = [name for name in files if not (folder / name).is_file()]
    changed = [name for name in sorted(files.keys() - set(lost)) if file_digest(folder / name) != files[name]]
    for names, what in ((lost, "does not exist"), (changed, "is damaged"), (added, "does not belong here")):
        if names:
            raise UserError(f"{folder / names[0]} {what}, according to {listed_in}. {remedy}")
