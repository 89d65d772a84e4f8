"""Reader of G3D files of version 4 (Glest, MegaGlest): the first frame of animated meshes with one texture each.

Layout: the comments of Glest's source code (shared_lib/include/graphics/model_header.h).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from z1g.meshes.raster.beside import gray_or, load_texture, with_alpha
from z1g.meshes.raster.binary import Cursor, checked
from z1g.meshes.raster.scene import Material, MeshError, Part, Texture
from z1g.meshes.textures import G3D_TEXTURES

MAGIC, VERSION = b"G3D", 4
OF_THE_TEAM = 1
"""Bit of a mesh's properties: where its texture is transparent, it has the color of the team."""
TEAM = (153, 26, 26)
"""Color of the team, sRGB of 8 bits; games have several."""


class _Header(NamedTuple):
    """Of one mesh: its name, numbers of frames, vertices and indices, diffuse color, opacity, and bits."""

    frames: int
    vertices: int
    indices: int
    color: tuple[float, float, float]
    opacity: float
    properties: int
    textures: int


def read_g3d(path: Path, team: tuple[int, int, int] | None = TEAM) -> list[Part]:
    """The triangles of the first frame. Raises MeshError for damaged files, other versions and missing textures.

    team: None for what belongs to no team, as plants: alpha then is that of a cut-out in all meshes.
    """
    cursor = Cursor(path.read_bytes())
    magic, version = cursor.bytes(3), cursor.bytes(1)[0]
    if magic != MAGIC:
        raise MeshError("not a G3D file")
    if version != VERSION:
        raise MeshError(f"it is a G3D file of version {version}; version {VERSION} can be read")
    meshes, _ = cursor.values("HB")
    loaded: dict[str, Texture] = {}
    return [part for _ in range(meshes) if (part := _part(cursor, path, team, loaded)) is not None]


def _part(cursor: Cursor, path: Path, team: tuple[int, int, int] | None, loaded: dict[str, Texture]) -> Part | None:
    """The next mesh, None if it has no triangles."""
    cursor.text(64)
    frames, vertices, indices = cursor.values("3I")
    red, green, blue, *_ = cursor.values("6f")
    header = _Header(frames, vertices, indices, (red, green, blue), *cursor.values("4xf2I"))
    names = [cursor.text(64) if header.textures >> bit & 1 else "" for bit in range(G3D_TEXTURES)]
    if header.frames < 1:
        raise MeshError("a mesh has no frames")
    positions = cursor.array("<f4", vertices, 3)
    cursor.bytes((frames - 1) * vertices * 12)
    normals = cursor.array("<f4", vertices, 3)
    cursor.bytes((frames - 1) * vertices * 12)
    uv = cursor.array("<f4", vertices, 2) if header.textures else None
    triangles = checked(cursor.array("<u4", 1, indices)[0, : indices // 3 * 3].reshape(-1, 3), vertices)
    if not len(triangles):
        return None
    if uv is not None:
        # Images are stored with the bottom row first.
        uv = uv.astype(np.float64) * (1, -1) + (0, 1)
    material = _material(header, names[0], path, team, loaded)
    return Part(positions.astype(np.float64), triangles, normals.astype(np.float64), uv, None, material)


def _material(
    header: _Header, name: str, path: Path, team: tuple[int, int, int] | None, loaded: dict[str, Texture]
) -> Material:
    if not name:
        return gray_or(header.color, header.opacity)
    if name not in loaded:
        loaded[name] = load_texture(path, [name])
    if header.properties & OF_THE_TEAM and team is not None:
        return Material(texture=in_color(loaded[name], team))
    return with_alpha(loaded[name])


def in_color(texture: Texture, color: tuple[int, int, int]) -> Texture:
    """An opaque texture [H,W,4] that shows a color (sRGB, 8 bits) where the given one is transparent."""
    image = texture.image.copy()
    share = image[..., 3:].astype(np.float64) / 255
    image[..., :3] = (image[..., :3] * share + np.array(color) * (1 - share)).round()
    image[..., 3] = 255
    return Texture(image, texture.wrap, texture.nearest, texture.name)
