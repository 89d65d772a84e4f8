"""Files that a mesh file refers to."""

import json
import posixpath
import re
import struct
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple
from urllib.parse import unquote

from z1g.meshes.store import MARK, NotChecked, Store, whole_lines
from z1g.meshes.textures import ac3d_names, g3d_names, gazebo_place, md2_names, places

_LIBRARY = re.compile(rb"^" + MARK + rb"[ \t]*mtllib[ \t]+(.*)", re.MULTILINE)
_MAP = re.compile(rb"^[ \t]*(?:map_\w+|bump|disp|decal|refl|norm)[ \t]+([^ \t\n][^\n]*)", re.IGNORECASE | re.MULTILINE)
_OPTION = re.compile(r"-\w+(?:\s+(?:on|off|[-\d.]+))*\s+")
_EMBEDDED = re.compile(rb'"data:[^"\\]{0,200}?;base64,')
_LONGEST_START = 256
"""At least the length of a match of _EMBEDDED, bytes."""
_GLB = b"glTF"
_LARGEST_TEXT = 32 * 2**20
"""Size limit of a glTF document without its embedded data, bytes; the largest known have a tenth of it."""
_LARGEST_TREE = 150 * 2**20
"""Limit of the memory that Python's objects for a document take, bytes, estimated from its punctuation."""
_MOST_REFERENCES = 10_000
"""Limit of the number of files that a mesh refers to; more are an attempt to fill the memory."""
_BLOCK = 2**20


class Reference(NamedTuple):
    """A file that a mesh refers to: `uri` in the mesh's spelling, `name` relative to the store, `exists` in it."""

    name: str
    uri: str
    role: str
    """`material`, `image` or `data`."""
    exists: bool


def references(store: Store, mesh: str) -> list[Reference]:
    """Side files of a mesh file without duplicates, in the mesh's order.

    Supported for OBJ (materials and their images), glTF (buffers, images), AC3D, MD2 and G3D (images); empty for other
    formats. Raises NotChecked if the mesh refers to a file that it must not read, or is too large to know; else any of
    UNREADABLE.
    """
    read = _READERS.get(posixpath.splitext(mesh)[1].lower())
    unique: dict[tuple[str, str], Reference] = {}
    for reference in read(store, mesh) if read is not None else ():
        unique.setdefault((reference.uri, reference.role), reference)
        _require_few(len(unique))
    return list(unique.values())


def material_libraries(store: Store, mesh: str) -> list[str]:
    """Material files in the `mtllib` lines of an OBJ, without duplicates; names may have spaces and quotes."""
    names: dict[bytes, None] = {}
    with store.open(mesh) as stream:
        for lines in whole_lines(stream):
            for match in _LIBRARY.finditer(lines):
                names[match[1]] = None
                _require_few(len(names))
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
                beside = _beside(store, material.name, image, "image")
                other = beside if beside.exists else _beside(store, material.name, gazebo_place(image), "image")
                yield other if other.exists else beside


def _images(store: Store, material: str) -> Iterator[str]:
    with store.open(material) as stream:
        for lines in whole_lines(stream):
            for match in _MAP.finditer(lines.replace(b"\r", b"\n")):
                text, start = _text(match[1]).rstrip(), 0
                while option := _OPTION.match(text, start):
                    start = option.end()
                yield text[start:].strip('"')


def _gltf(store: Store, mesh: str) -> Iterator[Reference]:
    with store.open(mesh) as stream:
        content = _document(stream)
    try:
        document = json.loads(content)
    except RecursionError as error:
        raise NotChecked(f"its glTF document is nested too deeply: {error}") from error
    except ValueError:
        return  # Blender reports the error of a damaged file
    for role, name in _uris(document):
        # As Blender does, which unquotes file names only.
        if not name.startswith("data:"):
            yield _beside(store, mesh, unquote(name), role)


def _uris(document: Any) -> Iterator[tuple[str, str]]:
    """Role and URI of every buffer and image, also in a document that is damaged elsewhere."""
    for role, key in (("data", "buffers"), ("image", "images")):
        parts = document.get(key) if isinstance(document, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and isinstance(part.get("uri"), str):
                yield role, part["uri"]


def _document(stream: IO[bytes]) -> bytes:
    """The JSON of a glTF, without embedded data. Raises NotChecked if it is too large to be parsed within limits."""
    head = stream.read(20)
    size = None
    if head[:4] == _GLB:
        size = struct.unpack("<I", head[12:16])[0] if len(head) == 20 else 0
        head = b""
    kept = bytearray()
    for piece in _without_data(_blocks(stream, head, size)):
        kept += piece
        if len(kept) > _LARGEST_TEXT:
            raise NotChecked(
                f"its glTF document is larger than {_LARGEST_TEXT // 2**20} MiB without embedded data; save it as .glb"
            )
    text = bytes(kept)
    # An object with one key takes 232 bytes, an empty list 64, and each further key with its value up to 130.
    if 232 * text.count(b"{") + 64 * text.count(b"[") + 130 * text.count(b",") > _LARGEST_TREE:
        raise NotChecked("its glTF document has too many entries to be checked; simplify it or split it")
    return text


def _blocks(stream: IO[bytes], head: bytes, size: int | None) -> Iterator[bytes]:
    """The rest of a stream in blocks, after `head`; at most `size` bytes if it is given."""
    left = size
    yield head
    while block := stream.read(_BLOCK if left is None else min(_BLOCK, left)):
        left = left if left is None else left - len(block)
        yield block


def _without_data(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The text without the data of its `data:` URIs, which may be as large as a mesh and its images."""
    inside, rest = False, b""
    for block in blocks:
        text, at, rest = rest + block, 0, b""
        while at < len(text):
            if inside:
                end = text.find(b'"', at)
                inside, start, at = end < 0, at, len(text) if end < 0 else end
                if text.find(b"\\", start, at) >= 0:
                    # The end of the string would be uncertain.
                    raise NotChecked("the embedded data of its glTF document has a backslash; save it again")
            elif match := _EMBEDDED.search(text, at):
                yield text[at : match.end()]
                inside, at = True, match.end()
            else:
                # The start of a URI may lie in two blocks.
                rest = text[max(at, len(text) - _LONGEST_START) :]
                yield text[at : len(text) - len(rest)]
                break
    yield rest


def _beside(store: Store, file: str, uri: str, role: str) -> Reference:
    folder = posixpath.dirname(file)
    path = posixpath.join(folder, uri.replace("\\", "/"))
    # Blender also takes the name as it is.
    store.find(posixpath.join(folder, uri))
    name = store.find(path)
    return Reference(path if name is None else name, uri, role, name is not None)


def _require_few(number: int) -> None:
    if number > _MOST_REFERENCES:
        raise NotChecked(f"it refers to more than {_MOST_REFERENCES} files")


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _named(read: Callable[[IO[bytes]], Iterator[str]]) -> Callable[[Store, str], Iterator[Reference]]:
    """The images that a mesh of a game names."""

    def images(store: Store, mesh: str) -> Iterator[Reference]:
        with store.open(mesh) as stream:
            for name in read(stream):
                yield _placed(store, mesh, name)

    return images


def _md2(store: Store, mesh: str) -> Iterator[Reference]:
    """The first skin that exists, or else the image with the name of the mesh."""
    with store.open(mesh) as stream:
        skins = [*md2_names(stream), ""]
    found = (reference for name in skins if (reference := _placed(store, mesh, name)).exists)
    yield next(found, Reference(skins[0], skins[0], "image", False))


def _placed(store: Store, mesh: str, name: str) -> Reference:
    found = next((path for place in places(mesh, name) if (path := store.find(place)) is not None), None)
    return Reference(name if found is None else found, name, "image", found is not None)


_READERS: dict[str, Callable[[Store, str], Iterator[Reference]]] = {
    ".obj": _obj, ".gltf": _gltf, ".glb": _gltf, ".ac": _named(ac3d_names), ".md2": _md2, ".g3d": _named(g3d_names),
}  # fmt: skip
