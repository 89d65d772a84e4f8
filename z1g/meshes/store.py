"""Where a mesh and its side files lie: a folder on disk, or an archive."""

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
"""What opening and reading a store's files may raise; `zipfile` lets all of these through from a damaged archive."""


_BLOCK = 16 * 2**20


def whole_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """A text in blocks of many lines, none of them cut: a pattern runs over a block far faster than over each line."""
    rest = b""
    while block := stream.read(_BLOCK):
        lines, newline, last = (rest + block).rpartition(b"\n")
        if newline:
            yield lines + newline
        rest = last
    yield rest


class Store(Protocol):
    """Files by posix path, relative to the store's root."""

    def find(self, name: str) -> str | None:
        """The store's own spelling of a path, None where there is no such file."""

    def open(self, name: str) -> IO[bytes]:
        """A file's content as a stream. Both may raise any of UNREADABLE."""


class Disk:
    """Files below a folder, or reached from it: a mesh may name `../textures/wood.jpg`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, name: str) -> str | None:
        return name if (self.root / name).is_file() else None

    def open(self, name: str) -> IO[bytes]:
        return (self.root / name).open("rb")


class Archive:
    """Members of a zip. Those with a path that leaves the archive, links and encrypted ones are not there."""

    def __init__(self, path: Path) -> None:
        """Raises any of UNREADABLE where it is no whole zip."""
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
        """Bytes that a member says it unpacks to."""
        return self.members[name].file_size


def _harmless(info: zipfile.ZipInfo) -> bool:
    name = info.filename
    inside = posixpath.normpath(name) == name and not name.startswith(("/", "../")) and "\\" not in name
    link = (info.external_attr >> 16) & 0o170000 == 0o120000
    return inside and not link and not info.flag_bits & 1
