"""Reader of AC3D files (.ac; FlightGear and others): a tree of objects of polygons, each with one texture.

Layout: "The AC3D file format" (Inivis, version b). Materials have a color and an opacity; a texture multiplies them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from z1g.core.names import counted
from z1g.meshes.raster.beside import gray_or, load_texture, with_alpha
from z1g.meshes.raster.colors import to_linear
from z1g.meshes.raster.polygons import triangulated
from z1g.meshes.raster.scene import GRAY, Material, MeshError, Part, Texture
from z1g.meshes.textures import unquoted

Array = NDArray[Any]
MAGIC = "AC3D"
KIND = 0xF
"""Bits of a surface's flags with its kind: a polygon is 0, lines are others."""
MOST_DEPTH = 500


@dataclass
class _Object:
    """One object of the tree: what its lines say, with vertices [N,3] in its own coordinates."""

    name: str = ""
    texture: str = ""
    repeat: Array = field(default_factory=lambda: np.ones(2))
    offset: Array = field(default_factory=lambda: np.zeros(2))
    rotation: Array = field(default_factory=lambda: np.eye(3))
    location: Array = field(default_factory=lambda: np.zeros(3))
    vertices: Array = field(default_factory=lambda: np.zeros((0, 3)))
    polygons: dict[int, list[list[str]]] = field(default_factory=dict)
    """Lines of corners (vertex, u, v) of each polygon, by material."""
    kids: int = 0


def read_ac3d(path: Path, without: Sequence[str] = ()) -> list[Part]:
    """All polygons, one part for each material and texture. Raises MeshError for damaged files and missing textures.

    without: objects whose names contain one of these words (in lower case) are left out, with what is below them.
    """
    try:
        lines = _Lines(path.read_bytes().decode("latin-1").splitlines())
        if not lines.take().startswith(MAGIC):
            raise MeshError("not an AC3D file")
        materials = [_material(line) for line in lines.until("OBJECT") if line.startswith("MATERIAL")]
        corners: dict[tuple[int, str], list[tuple[Array, Array]]] = {}
        for item, rotation, location in _tree(lines, without):
            world = item.vertices @ rotation.T + location
            for material, polygons in item.polygons.items():
                corners.setdefault((material, item.texture), []).append(_corners(item, world, polygons))
    except (ValueError, IndexError) as error:
        raise MeshError(f"the file is damaged: {error}") from error
    textures = {name: load_texture(path, [name]) for name in dict.fromkeys(name for _, name in corners) if name}
    return [
        _part(pieces, materials[material] if material < len(materials) else GRAY, textures.get(texture))
        for (material, texture), pieces in corners.items()
    ]


class _Lines:
    """Lines of a file, read one after the other. Raises ValueError at the end."""

    def __init__(self, lines: list[str]) -> None:
        self._lines, self._at = lines, 0

    def take(self) -> str:
        """The next line."""
        if self._at >= len(self._lines):
            raise ValueError("it ends too early")
        self._at += 1
        return self._lines[self._at - 1]

    def some(self, count: int) -> list[str]:
        """The next `count` lines."""
        if not 0 <= count <= len(self._lines) - self._at:
            raise ValueError("it ends too early")
        self._at += count
        return self._lines[self._at - count : self._at]

    def until(self, word: str) -> Iterator[str]:
        """Lines before one that begins with `word`, which is the next line afterwards; all if there is none."""
        while self._at < len(self._lines) and not self._lines[self._at].startswith(word):
            yield self.take()

    @property
    def ended(self) -> bool:
        """Whether there are no more lines."""
        return self._at >= len(self._lines)

    def skip(self, characters: int) -> None:
        """Skip lines of so many characters, line feeds included."""
        while characters > 0:
            characters -= len(self.take()) + 1


def _material(line: str) -> Material:
    """Of `MATERIAL "name" rgb R G B amb ... trans T`."""
    words = line.rpartition('"')[2].split()
    # The color comes first; in files edited by hand, its word is not always `rgb`.
    color = _numbers(" ".join(words[1:4]), 3)
    return gray_or(tuple(to_linear(np.clip(color, 0, 1))), 1.0 - float(words[words.index("trans") + 1]))


def _tree(lines: _Lines, without: Sequence[str]) -> Iterator[tuple[_Object, Array, Array]]:
    """Objects with their rotation [3,3] and location [3] in the world, parents first."""
    above = [[np.eye(3), np.zeros(3), False]]
    """Of each object whose children follow: rotation, location, and whether it is left out."""
    waiting = [1 << 30]
    """Number of these children that have not been read."""
    for _ in lines.until("OBJECT"):
        pass
    while not lines.ended:
        lines.take()
        item = _object(lines)
        rotation, location, hidden = above[-1]
        rotation, location = rotation @ item.rotation, rotation @ item.location + location
        hidden = hidden or any(word in item.name.lower() for word in without)
        if not hidden:
            yield item, rotation, location
        waiting[-1] -= 1
        if item.kids > 0:
            above.append([rotation, location, hidden])
            waiting.append(item.kids)
            if len(above) > MOST_DEPTH:
                raise ValueError(f"objects are nested deeper than {MOST_DEPTH}")
        while len(waiting) > 1 and waiting[-1] <= 0:
            above.pop()
            waiting.pop()
        for _ in lines.until("OBJECT"):
            pass
    # Whoever removes an object from the world by hand forgets to count it.
    if len(waiting) > 2:
        raise ValueError(f"it ends too early: {counted(sum(waiting[2:]), 'object')} missing")


def _object(lines: _Lines) -> _Object:
    """The object whose first line has been read, up to its line `kids`."""
    item = _Object()
    while True:
        line = lines.take()
        word, _, rest = line.strip().partition(" ")
        if word == "kids":
            item.kids = int(rest)
            return item
        if word == "name":
            item.name = unquoted(rest)
        elif word == "data":
            lines.skip(int(rest))
        elif word == "texture":
            item.texture = item.texture or unquoted(rest)
        elif word in ("texrep", "texoff"):
            setattr(item, {"texrep": "repeat", "texoff": "offset"}[word], _numbers(rest, 2))
        elif word == "rot":
            # By columns.
            item.rotation = _numbers(rest, 9).reshape(3, 3).T
        elif word == "loc":
            item.location = _numbers(rest, 3)
        elif word == "numvert":
            rows = [vertex.split()[:3] for vertex in lines.some(int(rest))]
            item.vertices = np.array(rows, np.float64).reshape(-1, 3)
        elif word == "numsurf":
            for _ in range(int(rest)):
                _surface(lines, item)


def _numbers(text: str, count: int) -> Array:
    numbers = np.array([float(word) for word in text.split()[:count]])
    if len(numbers) != count:
        raise ValueError(f"{counted(count, 'number')} expected, found {text[:60]}")
    return numbers


def _surface(lines: _Lines, item: _Object) -> None:
    """Add the next surface to an object, if it is a polygon."""
    for _ in lines.until("SURF"):
        pass
    flags, material = int(lines.take().split()[1], 16), 0
    while True:
        word, _, rest = lines.take().strip().partition(" ")
        if word == "mat":
            material = int(rest)
        elif word == "refs":
            corners = lines.some(int(rest))
            break
    if flags & KIND == 0 and len(corners) >= 3:
        item.polygons.setdefault(max(material, 0), []).append(corners)


def _corners(item: _Object, world: Array, polygons: list[list[str]]) -> tuple[Array, Array]:
    """Positions and texture coordinates [3 T,...] of the triangles' corners."""
    rows = [[*corner.split()[:3], "0", "0"][:3] for polygon in polygons for corner in polygon]
    values = np.array(rows, np.float64)
    vertices = values[:, 0].astype(np.int64)
    if not 0 <= vertices.min() <= vertices.max() < len(world):
        raise ValueError("a face refers to a vertex that does not exist")
    triangles, _ = triangulated(world, vertices, np.array([len(polygon) for polygon in polygons]))
    chosen = triangles.reshape(-1)
    uv = values[:, 1:] * item.repeat + item.offset
    # v counts from the bottom.
    uv[:, 1] = 1 - uv[:, 1]
    return world[vertices[chosen]], uv[chosen]


def _part(pieces: list[tuple[Array, Array]], material: Material, texture: Texture | None) -> Part:
    positions = np.concatenate([positions for positions, _ in pieces])
    triangles = np.arange(len(positions)).reshape(-1, 3)
    if texture is None:
        return Part(positions, triangles, None, None, None, material)
    uv = np.concatenate([uv for _, uv in pieces])
    return Part(positions, triangles, None, uv, None, with_alpha(texture, material.factor))
