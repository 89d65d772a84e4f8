"""Images that the meshes of games name, and where they are searched for.

Listing (`z1g/meshes/references.py`) and the readers of `z1g/meshes/raster/` both ask here, so that a mesh reads no file
that has not been checked.
"""

import posixpath
import re
import struct
from collections.abc import Iterator
from typing import IO

from z1g.meshes.store import NotChecked, whole_lines

ENDINGS = (".png", ".jpg", ".jpeg", ".tga", ".bmp", ".dds", ".rgb", ".pcx")
MOST_NAMES = 10_000
MOST_LEVELS = 6
"""How far above a mesh the root folder of its game may be."""
MD2_HEADER, MD2_SKIN = 68, 64
G3D_MESH = "<64s3I3f3f2f2I"
G3D_TEXTURES = 5
_TEXTURE = re.compile(rb"^[ \t]*texture[ \t]+([^\r\n]+)", re.MULTILINE)


def gazebo_place(name: str) -> str:
    """Where an image lies that a material in `meshes/` names, in models of the robot simulator Gazebo.

    Google Scanned Objects are published so: `meshes/model.obj` and `materials/textures/texture.png`.
    """
    return f"../materials/textures/{posixpath.basename(name)}"


def ac3d_names(stream: IO[bytes]) -> Iterator[str]:
    """Names in the `texture` lines of an AC3D file, without duplicates."""
    names: set[str] = set()
    for lines in whole_lines(stream):
        for match in _TEXTURE.finditer(lines):
            name = unquoted(match[1].decode("latin-1"))
            if name and name not in names:
                names.add(name)
                _require_few(len(names))
                yield name


def unquoted(text: str) -> str:
    """The first word of a line, or what is in its quotes."""
    text = text.strip()
    return text[1:].partition('"')[0] if text.startswith('"') else text.partition(" ")[0]


def md2_names(stream: IO[bytes]) -> Iterator[str]:
    """Skins that an MD2 file names: alternatives, the first of which is the usual one."""
    header = stream.read(MD2_HEADER)
    if len(header) < MD2_HEADER or header[:4] != b"IDP2":
        return
    count, offset = struct.unpack_from("<i", header, 20)[0], struct.unpack_from("<i", header, 44)[0]
    _require_few(count)
    if count > 0 and offset >= MD2_HEADER:
        stream.seek(offset)
        content = stream.read(count * MD2_SKIN)
        for at in range(0, len(content) - MD2_SKIN + 1, MD2_SKIN):
            yield content[at : at + MD2_SKIN].partition(b"\0")[0].decode("latin-1")


def g3d_names(stream: IO[bytes]) -> Iterator[str]:
    """Color textures of the meshes of a G3D file of version 4."""
    head = stream.read(7)
    if len(head) < 7 or head[:4] != b"G3D\4":
        return
    for _ in range(min(struct.unpack_from("<H", head, 4)[0], MOST_NAMES)):
        content = stream.read(struct.calcsize(G3D_MESH))
        if len(content) < struct.calcsize(G3D_MESH):
            return
        values = struct.unpack(G3D_MESH, content)
        (frames, vertices, indices), textures = values[1:4], values[-1]
        for bit in range(G3D_TEXTURES):
            if textures >> bit & 1:
                name = stream.read(64).partition(b"\0")[0].decode("latin-1")
                if bit == 0 and name:
                    yield name
        stream.seek(frames * vertices * 24 + (vertices * 8 if textures else 0) + indices * 4, 1)


def places(mesh: str, name: str) -> Iterator[str]:
    """Where an image that a mesh names may lie, the best place first: POSIX paths relative to the mesh's store.

    Games name images relative to their own root folder, on systems that ignore case, and with other endings than the
    files have: `models/cars/red` in `game/models/trucks/truck.md2` may be `game/models/cars/red.png`. A name that
    begins with a dot is in the mesh's folder; no name at all is that of the mesh.
    """
    folder, name = posixpath.dirname(mesh), name.replace("\\", "/").strip()
    if name.startswith(".") and not name.startswith(".."):
        name = name[1:].lstrip("/")
    name = name or posixpath.splitext(posixpath.basename(mesh))[0]
    above = ["../" * level + name for level in range(1, MOST_LEVELS + 1)] if "/" in name else []
    stems = [posixpath.join(folder, path) for path in (name, posixpath.basename(name), *above)]
    ending = posixpath.splitext(name)[1]
    stems = [stem.removesuffix(ending) for stem in stems]
    seen: set[str] = set()
    for last in dict.fromkeys(([ending] if ending else []) + list(ENDINGS)):
        for stem in stems:
            place = stem + last
            for spelling in (place, posixpath.join(posixpath.dirname(place), posixpath.basename(place).lower())):
                if spelling not in seen:
                    seen.add(spelling)
                    yield spelling


def _require_few(number: int) -> None:
    if number > MOST_NAMES:
        raise NotChecked(f"it refers to more than {MOST_NAMES} files")
