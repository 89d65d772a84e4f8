"""Which photographs paths name. Imports nothing slow: a missing file is said before the networks are imported."""

from collections.abc import Sequence
from pathlib import Path

from z1g.core.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".tga")
"""Endings of photographs in a folder; files given by path may have any ending."""


WRITTEN = ("condition.png", "sheet.png", "turntable.webp")
"""Endings of images that a result has, after its name and a dot."""


def find(paths: Sequence[Path]) -> list[Path]:
    """Photographs at the given paths: files, and images in folders (not recursive). Raises UserError."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if _is_photograph(file))
            if not inside:
                raise UserError(f"{path}: no photographs here ({' '.join(ENDINGS)})")
            files += inside
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
    if file.suffix.lower() not in ENDINGS or file.name.startswith(".") or not file.is_file():
        return False
    name, _, rest = file.name.partition(".")
    return rest not in WRITTEN or not all(file.with_name(f"{name}.{other}").exists() for other in ("json", "ply"))
