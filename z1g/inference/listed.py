"""Which photographs paths name. Imports nothing slow: a missing file is said before the networks are imported."""

import logging
from collections.abc import Sequence
from pathlib import Path

from z1g.core.errors import UserError
from z1g.core.names import listed

log = logging.getLogger("z1g")
ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm",
    ".tga",
)  # fmt: skip
"""Endings of photographs in a folder; files given by path may have any ending."""
NOT_READ = (
    ".heic", ".heif", ".hif", ".jxl", ".jxr", ".svg", ".psd", ".xcf", ".exr", ".hdr", ".raw", ".dng", ".cr2", ".cr3",
    ".nef", ".nrw", ".arw", ".sr2", ".srf", ".srw", ".orf", ".rw2", ".raf", ".pef", ".3fr", ".iiq",
)  # fmt: skip
"""Endings of images of telephones, raw images of cameras, and images of other programs, which are not read."""
REMEDY = "convert to PNG or JPEG"
MOST_CHARACTERS = 300
"""Length of the list of files that are skipped."""

WRITTEN = ("condition.png", "sheet.png", "turntable.webp")
"""Endings of images that a result has, after its name and a dot."""


def find(paths: Sequence[Path]) -> list[Path]:
    """Photographs at the given paths: files, and images in folders (not recursive).

    Images in folders that cannot be read are skipped with a warning. Raises UserError, also if none is left.
    """
    files: list[Path] = []
    for path in dict.fromkeys(paths):
        if path.is_dir():
            inside = sorted(path.iterdir())
            found = [file for file in inside if _is_photograph(file)]
            skipped = listed([file.name for file in inside if _is_visible(file, NOT_READ)], MOST_CHARACTERS)
            if not found:
                others = f"; {skipped} cannot be read: {REMEDY}" if skipped else ""
                raise UserError(f"{path}: no photographs here ({' '.join(ENDINGS)}){others}")
            if skipped:
                log.warning("%s: skipped %s, which cannot be read: %s", path, skipped, REMEDY)
            files += found
        elif path.is_file():
            files.append(path)
        elif path.exists():
            raise UserError(f"{path} is neither a regular file nor a folder; name a photograph or a folder of them")
        else:
            raise UserError(f"{path}: there is no such file or folder")
    return list(dict.fromkeys(files))


def _is_photograph(file: Path) -> bool:
    """Whether a file of a folder is a photograph.

    Hidden ones are not, such as macOS's `._photo.jpg`, nor are images of an earlier result in the same folder.
    """
    if not _is_visible(file, ENDINGS):
        return False
    name, _, rest = file.name.partition(".")
    return rest not in WRITTEN or not all(file.with_name(f"{name}.{other}").exists() for other in ("json", "ply"))


def _is_visible(file: Path, endings: Sequence[str]) -> bool:
    return file.suffix.lower() in endings and not file.name.startswith(".") and file.is_file()
