"""Zips of meshes and Sweet Home 3D's furniture libraries (.sh3f): what is in them, and unpacking one object of them."""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from z1g.meshes.formats import ARCHIVES, FORMATS
from z1g.meshes.references import references
from z1g.meshes.store import Archive

CATALOG = "PluginFurnitureCatalog.properties"
_NUMBERED = re.compile(r"(\w+)#(\d+)")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_BLOCK = 2**20
_SELF_CONTAINED = (".obj", ".gltf", ".glb", ".ply", ".stl", ".usdz")
"""Formats whose side files are known, or that have none."""


class TooLarge(Exception):
    """An object unpacks to more than is allowed."""


@dataclass(frozen=True)
class Model:
    """A mesh in an archive and what the archive says of it."""

    member: str
    name: str = ""
    category: str = ""
    creator: str = ""
    license: str = ""


def models(archive: Archive) -> list[Model]:
    """The catalog's models where there is a catalog, else every mesh. Archives in archives are not opened."""
    if CATALOG in archive.members:
        with archive.open(CATALOG) as stream:
            return _catalog(stream.read().decode("latin-1"), archive)
    names = (name for name in archive.members if posixpath.splitext(name)[1].lower() in FORMATS)
    return [Model(name) for name in sorted(names) if not hidden(name.split("/"))]


def hidden(parts: Iterable[str]) -> bool:
    """Archives made on macOS carry a `._crate.obj` for every `crate.obj`, some in a folder of their own."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def unpack(path: Path, member: str, folder: Path, limit_bytes: int) -> Path:
    """Write a mesh of an archive and its side files below `folder`; return the mesh's path.

    Raises TooLarge, KeyError where the archive has no such member, any of UNREADABLE where it is broken.
    """
    status = path.stat()
    archive = _opened(path, status.st_size, status.st_mtime_ns)
    names = [member]
    names += [side.name for side in references(archive, member) if side.there]
    if posixpath.splitext(member)[1].lower() not in _SELF_CONTAINED:
        names += _beside(archive, member)
    left = limit_bytes
    for name in dict.fromkeys(names):
        left -= _copy(archive, name, folder / name, left)
    return folder / member


@lru_cache(maxsize=8)
def _opened(path: Path, size: int, time_ns: int) -> Archive:
    """An archive as it was at that time: a library's directory of thousands of members is read once, not per object."""
    return Archive(path)


def _copy(archive: Archive, name: str, target: Path, limit: int) -> int:
    """Write one member; return its bytes, counted rather than believed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(name) as source, target.open("wb") as file:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > limit:
                raise TooLarge(f"{name} and its side files unpack to more than is allowed")
            file.write(block)
    return written


def _beside(archive: Archive, member: str) -> Iterable[str]:
    """Everything in the member's folder and below, other meshes and archives left out."""
    folder = posixpath.dirname(member)
    for name in archive.members:
        ending = posixpath.splitext(name)[1].lower()
        if name.startswith(folder) and ending not in FORMATS + ARCHIVES:
            yield name


def _catalog(text: str, archive: Archive) -> list[Model]:
    """Models of a furniture catalog, a Java properties file with numbered keys such as `model#12`."""
    values = dict(_properties(text))
    numbers = sorted({match[2] for match in map(_NUMBERED.fullmatch, values) if match is not None}, key=int)
    found = []
    for number in numbers:
        member = archive.find(values.get(f"model#{number}", "").lstrip("/"))
        if member is None:
            continue
        terms = values.get(f"license#{number}", values.get("license", ""))
        name, category, creator = (values.get(f"{key}#{number}", "") for key in ("name", "category", "creator"))
        found.append(Model(member, name, category, creator, terms))
    return found


def _properties(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "!")):
            decoded = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), value.strip())
            yield key.strip(), " ".join(re.sub(r"\\(.)", r"\1", decoded).split())
