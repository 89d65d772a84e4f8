"""Zip archives of meshes and Sweet Home 3D furniture libraries (.sh3f): listing them and unpacking single objects."""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from z1g.meshes.formats import ARCHIVES, FORMATS, GAMES
from z1g.meshes.references import references
from z1g.meshes.store import Archive, NotChecked

CATALOG = "PluginFurnitureCatalog.properties"
_NUMBERED = re.compile(r"(\w+)#(\d+)")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_BLOCK = 2**20
_LARGEST_CATALOG = 8 * 2**20
_SELF_CONTAINED = (".obj", ".gltf", ".glb", ".ply", ".stl", ".usdz", *GAMES)
"""Formats whose side files are known, and formats without side files."""


class TooLarge(Exception):
    """The unpacked object exceeds the size limit."""


@dataclass(frozen=True)
class Model:
    """A mesh in an archive and its metadata."""

    member: str
    name: str = ""
    category: str = ""
    creator: str = ""
    license: str = ""


def models(archive: Archive) -> list[Model]:
    """Models of the catalog if there is one, else all meshes. Nested archives are not opened."""
    if CATALOG in archive.members:
        if archive.size(CATALOG) > _LARGEST_CATALOG:
            raise NotChecked(f"{CATALOG} is larger than {_LARGEST_CATALOG // 2**20} MiB; unpack it and list the folder")
        with archive.open(CATALOG) as stream:
            return _catalog(stream.read().decode("latin-1"), archive)
    names = (name for name in archive.members if posixpath.splitext(name)[1].lower() in FORMATS)
    return [Model(name) for name in sorted(names) if not hidden(name.split("/"))]


def hidden(parts: Iterable[str]) -> bool:
    """Whether a path is hidden. macOS adds a `._crate.obj` per `crate.obj` to archives, sometimes in `__MACOSX`."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def unpack(path: Path, member: str, folder: Path, limit_bytes: int) -> Path:
    """Unpack a mesh and its side files to `folder`; return the path of the mesh.

    Raises TooLarge, KeyError if the archive has no such member, and any of UNREADABLE if it is damaged.
    """
    status = path.stat()
    archive = _opened(path, status.st_size, status.st_mtime_ns)
    names = [member]
    names += [side.name for side in references(archive, member) if side.exists]
    if posixpath.splitext(member)[1].lower() not in _SELF_CONTAINED:
        names += _beside(archive, member)
    left = limit_bytes
    for name in dict.fromkeys(names):
        left -= _copy(archive, name, folder / name, left)
    return folder / member


@lru_cache(maxsize=8)
def _opened(path: Path, size: int, time_ns: int) -> Archive:
    """An opened archive, cached so that a directory of thousands of members is read once and not for every object."""
    return Archive(path)


def _copy(archive: Archive, name: str, target: Path, limit: int) -> int:
    """Write one member; return the number of bytes written, which may differ from the archive's directory."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(name) as source, target.open("wb") as file:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > limit:
                raise TooLarge(f"{name} and its side files exceed the limit when unpacked")
            file.write(block)
    return written


def _beside(archive: Archive, member: str) -> Iterable[str]:
    """All files in the member's folder and its subfolders except other meshes and archives."""
    folder = posixpath.dirname(member)
    for name in archive.members:
        ending = posixpath.splitext(name)[1].lower()
        if name.startswith(folder) and ending not in FORMATS + ARCHIVES:
            yield name


def _catalog(text: str, archive: Archive) -> list[Model]:
    """Models of a furniture catalog, a Java properties file with numbered keys such as `model#12`."""
    values = dict(_properties(text))
    numbers = sorted({match[2] for match in map(_NUMBERED.fullmatch, values) if match is not None}, key=int)
    catalog = []
    for number in numbers:
        member = archive.find(values.get(f"model#{number}", "").lstrip("/"))
        if member is None:
            continue
        terms = values.get(f"license#{number}", values.get("license", ""))
        name, category, creator = (values.get(f"{key}#{number}", "") for key in ("name", "category", "creator"))
        catalog.append(Model(member, name, category, creator, terms))
    return catalog


def _properties(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "!")):
            decoded = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), value.strip())
            yield key.strip(), " ".join(re.sub(r"\\(.)", r"\1", decoded).split())
