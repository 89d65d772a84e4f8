"""Digests of files, which identify them by content and not by path."""

import hashlib
from pathlib import Path

from z1g.meshes.index import Index


def file_digest(path: str) -> str | None:
    """SHA-256 of a file, None if it cannot be read. A file is read again only if its size or time has changed."""
    file = Path(path).absolute()

    def make() -> tuple[str, list[Path]]:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest(), [file]

    index = Index(f"file {file}")
    try:
        digest: str = index.value("sha256", make)
    except OSError:
        return None
    index.save()
    return digest
