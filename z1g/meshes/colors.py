"""Detecting meshes with a single plain color from their files."""

import posixpath
import re
from collections.abc import Iterator

from z1g.meshes.references import references
from z1g.meshes.store import MARK, NotChecked, Store, whole_lines

_LINE = re.compile(rb"^" + MARK + rb"[ \t]*((?:usemtl|newmtl|Kd)[ \t][^\n]*)", re.MULTILINE)
_MOST_MATERIALS = 10_000


def colored(store: Store, mesh: str) -> bool:
    """Whether the materials in use of an OBJ have an image or at least two diffuse colors; True for other formats.

    Raises any of UNREADABLE.
    """
    if posixpath.splitext(mesh)[1].lower() != ".obj":
        return True
    used = set()
    for word, name in _lines(store, mesh):
        if word == "usemtl":
            used.add(name)
            if len(used) > _MOST_MATERIALS:
                raise NotChecked(f"it uses more than {_MOST_MATERIALS} materials")
    colors: set[str] = set()
    for side in references(store, mesh):
        if side.role == "image":
            return True
        if side.role == "material" and side.exists:
            for material, color in _diffuse(store, side.name):
                if material in used:
                    colors.add(color)
                    if len(colors) > 1:
                        return True
    return False


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
        for lines in whole_lines(stream):
            for match in _LINE.finditer(lines):
                word, _, rest = match[1].decode("utf-8", errors="replace").strip().partition(" ")
                yield word, " ".join(rest.split())
