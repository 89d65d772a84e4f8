"""Storage of a mesh and its side files: a folder on disk or an archive."""

from __future__ import annotations

import lzma
import os
import posixpath
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

UNREADABLE: tuple[type[Exception], ...] = (
    OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, RuntimeError, ValueError,
)  # fmt: skip
"""Exceptions of opening and reading a store's files; `zipfile` raises any of these on a damaged archive."""
LONGEST_LINE = 16 * 2**20
"""Size limit of one line of a text, bytes; a longer one is not a line of a mesh or a material."""
LARGEST_DIRECTORY = 32 * 2**20
"""Size limit of an archive's directory, bytes; in memory, it takes about ten times as much."""
MARK = rb"(?:\xef\xbb\xbf)?"
"""Pattern of the byte order mark that some editors write before the first line of a text."""
_BLOCK = 4 * 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Only these are decompressed in small pieces; `zipfile` unpacks the others at once, whatever their size."""
_OTHER_METHODS = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "lzma"}


class NotChecked(ValueError):
    """A file that cannot be checked within the limits, or that refers to a file it must not read.

    The message is shown to the user.
    """


def whole_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield a text in blocks of whole lines; matching a pattern is much faster on blocks than on single lines.

    Raises NotChecked at a line longer than LONGEST_LINE.
    """
    parts: list[bytes] = []
    size = 0
    while block := stream.read(_BLOCK):
        lines, newline, last = block.rpartition(b"\n")
        if newline:
            yield b"".join([*parts, lines, newline])
            parts, size = [], 0
        parts.append(last)
        size += len(last)
        if size > LONGEST_LINE:
            raise NotChecked(
                f"a line is longer than {LONGEST_LINE // 2**20} MiB, so the file is not a text; check how it was made"
            )
    yield b"".join(parts)


class Store(Protocol):
    """Files by POSIX path relative to the store's root."""

    def find(self, name: str) -> str | None:
        """The store's spelling of a path, None if there is no such file. Raises NotChecked if it must not be read."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file as a binary stream. Both methods may raise any of UNREADABLE."""

    def size(self, name: str) -> int:
        """Size of a file in bytes."""


class Disk:
    """Files by path relative to a folder. Only files inside of the folder or of further roots are read.

    A file that is reached over `..`, an absolute path or a symbolic link has to lie in a root: a mesh may refer to
    `../textures/wood.jpg` if both are in a root. `beyond`: whether a file was found that is not in the folder itself.
    """

    def __init__(self, root: Path, roots: Sequence[Path] = ()) -> None:
        self.root = root
        self.beyond = False
        self._own, *self._roots = [path.resolve() for path in (root, *roots)]

    def find(self, name: str) -> str | None:
        if "\0" in name or not _encodable(name):
            return None
        # Blender's importers resolve `..` in the text, the system after following links.
        for path in (self.root / name, Path(os.path.normpath(self.root / name))):
            self._require_inside(name, path)
        return name if (self.root / name).is_file() else None

    def open(self, name: str) -> IO[bytes]:
        path = self.root / name
        if not stat.S_ISREG(path.stat().st_mode):
            raise NotChecked(f"{path} is not a regular file")
        return path.open("rb")

    def size(self, name: str) -> int:
        return (self.root / name).stat().st_size

    def _require_inside(self, name: str, path: Path) -> None:
        """Raise NotChecked if a path leads to a file outside of the roots; a file that does not exist is harmless."""
        target = path.resolve()
        if target.exists() and not (target.is_file() or target.is_dir()):
            raise NotChecked(f"it refers to {name}, a device or pipe, which would be read without end")
        if target.is_relative_to(self._own) or not target.is_file():
            return
        if any(target.is_relative_to(root) for root in self._roots):
            self.beyond = True
            return
        how = f"{name}, which is {target}" if name != str(target) else name
        raise NotChecked(
            f"it refers to {how}, outside of its folder and of data.paths; move the file there, or add its folder to "
            "data.roots if the mesh may read it"
        )


def _encodable(name: str) -> bool:
    """Whether a file can have the name, which may have halves of surrogate pairs from JSON."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


class Archive:
    """Members of a zip archive, without encrypted ones, links and paths that leave the archive."""

    def __init__(self, path: Path) -> None:
        """Raises any of UNREADABLE if it is not a complete zip archive."""
        size = _directory_size(path)
        if size > LARGEST_DIRECTORY:
            raise NotChecked(
                f"its directory has {size // 2**20} MiB, more than {LARGEST_DIRECTORY // 2**20}; unpack it into a "
                "folder and list that"
            )
        self.zip = zipfile.ZipFile(path)
        self.members = {info.filename: info for info in self.zip.infolist() if _harmless(info)}

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *exc: object) -> None:
        self.zip.close()

    def find(self, name: str) -> str | None:
        path = posixpath.normpath(name)
        return path if path in self.members else None

    def open(self, name: str) -> IO[bytes]:
        info = self.members[name]
        if info.compress_type not in _METHODS:
            method = _OTHER_METHODS.get(info.compress_type, f"method {info.compress_type}")
            raise NotChecked(f"{name} is compressed with {method}; pack the archive again with deflate")
        return self.zip.open(info)

    def size(self, name: str) -> int:
        """Unpacked size of a member in bytes, according to the archive's directory; no more is unpacked."""
        return self.members[name].file_size


def _directory_size(path: Path) -> int:
    """Size of a zip archive's directory in bytes, 0 if there is none. `zipfile` reads it at once, before any check."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2**17))
        tail = file.read()
    # The directory lies before its end record, and the record says where.
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22:
        return 0
    claimed: int = struct.unpack_from("<I", tail, at + 12)[0]
    large = tail.rfind(b"PK\6\6", 0, at)
    if large >= 0 and len(tail) >= large + 48:
        claimed = max(claimed if claimed < 2**32 - 1 else 0, struct.unpack_from("<Q", tail, large + 40)[0])
    return claimed if claimed < size else 0


def _harmless(info: zipfile.ZipInfo) -> bool:
    name = info.filename
    inside = posixpath.normpath(name) == name and not name.startswith(("/", "../")) and "\\" not in name
    link = (info.external_attr >> 16) & 0o170000 == 0o120000
    return inside and not link and not info.flag_bits & 1
