"""Reader of MD2 files (Quake II and games made from it): the first frame of an animated mesh with one skin.

The format has no specification; its layout is that of id Software's source code (qfiles.h, released in 2001).
"""

from pathlib import Path

import numpy as np

from z1g.meshes.raster.beside import load_texture, with_alpha
from z1g.meshes.raster.binary import Cursor, checked
from z1g.meshes.raster.scene import MeshError, Part
from z1g.meshes.textures import MD2_SKIN

MAGIC, VERSION = b"IDP2", 8


def read_md2(path: Path) -> list[Part]:
    """The triangles of the first frame, z-up. Raises MeshError for damaged files and missing skins."""
    content = path.read_bytes()
    cursor = Cursor(content)
    if cursor.bytes(4) != MAGIC:
        raise MeshError("not an MD2 file")
    (version, width, height, _, skins, vertices, coordinates, triangles, _, frames, *offsets) = cursor.values("16i")
    at_skins, at_coordinates, at_triangles, at_frames = offsets[:4]
    if version != VERSION or min(skins, vertices, coordinates, triangles, *offsets[:4]) < 0:
        raise MeshError("the header is damaged, or of an unknown version")
    if frames < 1 or width < 1 or height < 1:
        raise MeshError("the file has no frames, or its skin has no size")
    corners = Cursor(content, at_triangles).array("<u2", triangles, 6)
    places = Cursor(content, at_coordinates).array("<i2", coordinates, 2) / np.array([width, height], np.float64)
    frame = Cursor(content, at_frames)
    scale, origin = frame.array("<f4", 2, 3).astype(np.float64)
    frame.text(16)
    positions = frame.array("u1", vertices, 4)[:, :3] * scale + origin
    skin = Cursor(content, at_skins)
    texture = load_texture(path, [*(skin.text(MD2_SKIN) for _ in range(skins)), ""])
    # Faces are clockwise seen from outside.
    corners = corners.astype(np.int64).reshape(-1, 2, 3)[:, :, ::-1]
    unique, inverse = np.unique(corners.transpose(0, 2, 1).reshape(-1, 2), axis=0, return_inverse=True)
    checked(unique[:, :1], vertices)
    checked(unique[:, 1:], coordinates)
    return [
        Part(positions[unique[:, 0]], inverse.reshape(-1, 3), None, places[unique[:, 1]], None, with_alpha(texture))
    ]
