"""Whether a mesh has more to show than one plain colour, as far as its files say."""

import posixpath
from collections.abc import Iterator

from z1g.meshes.references import references
from z1g.meshes.store import Store


def coloured(store: Store, mesh: str) -> bool:
    """Whether an OBJ's used materials name a picture or at least two diffuse colours; True for other formats.

    Raises any of UNREADABLE.
    """
    if posixpath.splitext(mesh)[1].lower() != ".obj":
        return True
    used = {name for word, name in _lines(store, mesh) if word == "usemtl"}
    colours = set()
    for side in references(store, mesh):
        if side.role == "picture":
            return True
        if side.role == "material" and side.there:
            colours |= {colour for material, colour in _diffuse(store, side.name) if material in used}
    return len(colours) > 1


def _diffuse(store: Store, library: str) -> Iterator[tuple[str, str]]:
    """Material and colour of every `Kd` line."""
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
