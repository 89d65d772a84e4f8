"""Storage of a mesh and its side files: a folder on disk or an archive."""

from __future__ import annotations

import lzma
import posixpath
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

UNREADABLE: tuple[type[Exception], ...] = (
    OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, RuntimeError, ValueError,
)  # fmt: skip
"""Exceptions of opening and reading a store's files; `zipfile` raises any of these on a damaged archive."""


_BLOCK = 16 * 2**20


def whole_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield a text in blocks of whole lines; matching a pattern is much faster on blocks than on single lines."""
    rest = b""
    while block := stream.read(_BLOCK):
        lines, newline, last = (rest + block).rpartition(b"\n")
        if newline:
            yield lines + newline
        rest = last
    yield rest


class Store(Protocol):
    """Files by POSIX path relative to the store's root."""

    def find(self, name: str) -> str | None:
        """The store's spelling of a path, None if there is no such file."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file as a binary stream. Both methods may raise any of UNREADABLE."""


class Disk:
    """Files by path relative to a folder, also outside of it: a mesh may refer to `../textures/wood.jpg`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, name: str) -> str | None:
        return name if (self.root / name).is_file() else None

    def open(self, name: str) -> IO[bytes]:
        return (self.root / name).open("rb")


class Archive:
    """Members of a zip archive, without encrypted ones, links and paths that leave the archive."""

    def __init__(self, path: Path) -> None:
        """Raises any of UNREADABLE if it is not a complete zip archive."""
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
        return self.zip.open(self.members[name])

    def size(self, name: str) -> int:
        """Unpacked size of a member in bytes, according to the archive's directory."""
        return self.members[name].file_size


def _harmless(info: zipfile.ZipInfo) -> bool:
    name = info.filename
    inside = posixpath.normpath(name) == name and not name.startswith(("/", "../")) and "\\" not in name
    link = (info.external_attr >> 16) & 0o170000 == 0o120000
    return inside and not link and not info.flag_bits & 1
