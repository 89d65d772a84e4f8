"""Which photographs paths name. Imports nothing slow: a missing file is said before the networks are imported."""

from collections.abc import Sequence
from pathlib import Path

from z1g.core.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".tga")
"""Endings of photographs in a folder; files given by path may have any ending."""


def find(paths: Sequence[Path]) -> list[Path]:
    """Photographs at the given paths: files, and images in folders (not recursive). Raises UserError."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS and file.is_file())
            if not inside:
                raise UserError(f"{path}: no photographs here ({' '.join(ENDINGS)})")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"{path}: there is no such file or folder")
    return list(dict.fromkeys(files))
