"""Files that a mesh file refers to."""

import json
import posixpath
import re
import struct
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple
from urllib.parse import unquote

from z1g.meshes.store import Store, whole_lines

_LIBRARY = re.compile(rb"^mtllib (.*)", re.MULTILINE)
_MAP = re.compile(rb"^\s*(?:map_\w+|bump|disp|decal|refl|norm)\s+(.+?)\s*$", re.IGNORECASE)
_OPTION = re.compile(r"^-\w+(?:\s+(?:on|off|[-\d.]+))*\s+")
_LARGEST_TEXT = 64 * 2**20
"""Size limit of a material file or glTF document; anything larger is not one."""


class Reference(NamedTuple):
    """A file that a mesh refers to: `uri` in the mesh's spelling, `name` relative to the store, `exists` in it."""

    name: str
    uri: str
    role: str
    """`material`, `image` or `data`."""
    exists: bool


def references(store: Store, mesh: str) -> list[Reference]:
    """Side files of a mesh file without duplicates, in the mesh's order.

    Supported for OBJ (materials and their images) and glTF (buffers, images); empty for other formats.
    """
    read = _READERS.get(posixpath.splitext(mesh)[1].lower())
    unique: dict[tuple[str, str], Reference] = {}
    for reference in read(store, mesh) if read is not None else ():
        unique.setdefault((reference.uri, reference.role), reference)
    return list(unique.values())


def material_libraries(store: Store, mesh: str) -> list[str]:
    """Material files in the `mtllib` lines of an OBJ; names may have spaces and quotes."""
    with store.open(mesh) as stream:
        names = [name for lines in whole_lines(stream) for name in _LIBRARY.findall(lines)]
    return [_text(name).strip().strip('"') for name in names]


def _obj(store: Store, mesh: str) -> Iterator[Reference]:
    libraries = material_libraries(store, mesh)
    materials = [_beside(store, mesh, name, "material") for name in libraries]
    # Blender also tries the material file with the name of the mesh.
    own = _beside(store, mesh, posixpath.basename(posixpath.splitext(mesh)[0]) + ".mtl", "material")
    if own.exists and not any(reference.exists for reference in materials):
        materials = [own]
    for material in materials:
        yield material
        if material.exists:
            for image in _images(store, material.name):
                yield _beside(store, material.name, image, "image")


def _images(store: Store, material: str) -> Iterator[str]:
    with store.open(material) as stream:
        for line in _head(stream).splitlines():
            match = _MAP.match(line)
            if match is None:
                continue
            text = _text(match[1])
            while _OPTION.match(text):
                text = _OPTION.sub("", text)
            yield text.strip('"')


def _gltf(store: Store, mesh: str) -> Iterator[Reference]:
    with store.open(mesh) as stream:
        content = _head(stream) if mesh.lower().endswith(".gltf") else _glb_document(stream)
    try:
        document = json.loads(content)
        parts = [("data", part) for part in document.get("buffers", [])]
        parts += [("image", part) for part in document.get("images", [])]
        names = [(role, unquote(part["uri"])) for role, part in parts if "uri" in part]
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return  # Blender reports the error of a damaged file
    for role, name in names:
        if not name.startswith("data:"):
            yield _beside(store, mesh, name, role)


def _glb_document(stream: IO[bytes]) -> bytes:
    head = stream.read(20)
    size = struct.unpack("<I", head[12:16])[0] if len(head) == 20 else 0
    return stream.read(min(size, _LARGEST_TEXT))


def _beside(store: Store, file: str, uri: str, role: str) -> Reference:
    path = posixpath.join(posixpath.dirname(file), uri.replace("\\", "/"))
    name = store.find(path)
    return Reference(path if name is None else name, uri, role, name is not None)


def _head(stream: IO[bytes]) -> bytes:
    return stream.read(_LARGEST_TEXT)


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


_READERS: dict[str, Callable[[Store, str], Iterator[Reference]]] = {".obj": _obj, ".gltf": _gltf, ".glb": _gltf}
