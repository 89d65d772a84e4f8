"""Files known by their content, so that results survive a move and do not survive an edit."""

import hashlib
from pathlib import Path

from z1g.meshes.index import Index


def file_digest(path: str) -> str | None:
    """SHA-256 of a file, None where it cannot be read. A file whose size and time are known is not read again."""
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
