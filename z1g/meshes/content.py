"""Digests of a mesh's content: of the whole object, its geometry and its images."""

import hashlib
import posixpath
import re
from dataclasses import dataclass

from z1g.meshes.references import Reference, references
from z1g.meshes.store import MARK, Store, whole_lines

_GEOMETRY = re.compile(rb"^" + MARK + rb"[ \t]*([vf][ \t][^\r\n]*)", re.MULTILINE)
_BLOCK = 2**20


@dataclass(frozen=True)
class Content:
    """SHA-256 digests: `content` of all files, `mesh` of the geometry, `textures` of all images, empty without."""

    content: str
    mesh: str
    textures: str


def content_of(store: Store, mesh: str) -> Content:
    """Digests of a mesh and its side files. Raises any of UNREADABLE, among them NotChecked, see `references`.

    The geometry is the vertex and face lines of an OBJ, the buffers of a glTF, and the whole file in other formats.
    """
    whole, geometry = _digests(store, mesh)
    side = references(store, mesh)
    digests: dict[str, str] = {}
    for reference in side:
        if reference.exists and reference.name not in digests:
            digests[reference.name] = _digest(store, reference.name)
    buffers = _of_role(side, digests, "data")
    images = sorted(set(_of_role(side, digests, "image")))
    return Content(
        _joined([whole, *(f"{reference.uri}={digests.get(reference.name)}" for reference in side)]),
        _joined(buffers) if buffers else geometry,
        _joined(images) if images else "",
    )


def _of_role(side: list[Reference], digests: dict[str, str], role: str) -> list[str]:
    return [digests[reference.name] for reference in side if reference.role == role and reference.exists]


def _digests(store: Store, mesh: str) -> tuple[str, str]:
    """Digest of a mesh file and of its geometry."""
    if posixpath.splitext(mesh)[1].lower() != ".obj":
        digest = _digest(store, mesh)
        return digest, digest
    whole, geometry = hashlib.sha256(), hashlib.sha256()
    with store.open(mesh) as stream:
        for lines in whole_lines(stream):
            whole.update(lines)
            for line in _GEOMETRY.findall(lines):
                geometry.update(b" ".join(line.split()) + b"\n")
    return whole.hexdigest(), geometry.hexdigest()


def _digest(store: Store, name: str) -> str:
    with store.open(name) as stream:
        digest = hashlib.sha256()
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _joined(digests: list[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
