"""Detecting meshes with a single plain color from their files."""

import posixpath
from collections.abc import Iterator

from z1g.meshes.references import references
from z1g.meshes.store import Store


def colored(store: Store, mesh: str) -> bool:
    """Whether the materials in use of an OBJ have an image or at least two diffuse colors; True for other formats.

    Raises any of UNREADABLE.
    """
    if posixpath.splitext(mesh)[1].lower() != ".obj":
        return True
    used = {name for word, name in _lines(store, mesh) if word == "usemtl"}
    colors = set()
    for side in references(store, mesh):
        if side.role == "image":
            return True
        if side.role == "material" and side.exists:
            colors |= {color for material, color in _diffuse(store, side.name) if material in used}
    return len(colors) > 1


def _diffuse(store: Store, library: str) -> Iterator[tuple[str, str]]:
    """Material and color of every `Kd` line."""
    material = ""
    for word, rest in _lines(store, library):
        if word == "newmtl":
            material = rest
        elif word == "Kd":
            yield material, rest


def _lines(store: Store, name: str) -> Iterator[tuple[str, str]]:
    """First word and the rest of every line."""
    with store.open(name) as stream:
        for line in stream:
            word, _, rest = line.decode("utf-8", errors="replace").strip().partition(" ")
            yield word, " ".join(rest.split())
