"""Files of games' mesh formats, written by hand from their layouts."""

import io
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CUBE = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64)
SIDES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
"""Corners of a cube's sides, counterclockwise seen from outside in a right-handed world."""
FACES = [triangle for a, b, c, d in SIDES for triangle in ((a, b, c), (a, c, d))]


def image(path: Path, pixels: Any) -> Path:
    """An image file of pixels [H,W,4] or [H,W,3]; the ending tells its format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


def checker(cells: int = 4, size: int = 32, alpha: int = 255) -> np.ndarray:
    """A colorful image [size,size,4], no two rows or columns of cells alike."""
    at = np.arange(size) * cells // size
    red, green = np.meshgrid(40 + 200 * at // cells, 40 + 200 * at // cells)
    blue = np.where((at[:, None] + at) % 2, 230, 20)
    return np.dstack([red, green, blue, np.full_like(red, alpha)]).astype(np.uint8)


def ac3d(objects: str, materials: Sequence[str] = ('"white" rgb 1 1 1 trans 0',)) -> str:
    """An AC3D file of materials (name, `rgb` and `trans`) and of a world's objects."""
    lines = [
        f"MATERIAL {text.replace(' trans', ' amb 1 1 1  emis 0 0 0  spec 0 0 0  shi 1 trans')}" for text in materials
    ]
    return "\n".join(["AC3Db", *lines, "OBJECT world", f"kids {objects.count('OBJECT poly')}", objects])


def ac3d_cube(texture: str = "", kids: int = 0, more: str = "", material: int = 0, name: str = "box") -> str:
    """One object: a cube whose sides show the whole image."""
    lines = ["OBJECT poly", f'name "{name}"', *([f'texture "{texture}"'] if texture else []), *([more] if more else [])]
    lines += [f"numvert {len(CUBE)}", *(f"{x} {y} {z}" for x, y, z in CUBE), f"numsurf {len(SIDES)}"]
    for side in SIDES:
        corners = [f"{v} {s} {t}" for v, (s, t) in zip(side, ((0, 0), (1, 0), (1, 1), (0, 1)), strict=True)]
        lines += ["SURF 0x10", f"mat {material}", "refs 4", *corners]
    return "\n".join([*lines, f"kids {kids}"])


def md2(
    skins: Sequence[str], scale: Sequence[float] = (0.5, 0.25, 0.125), origin: Sequence[float] = (1, 2, 3)
) -> bytes:
    """A cube of 200 steps a side with two frames (the second is empty) and a skin of 64 x 32 texels."""
    coordinates = np.array([[0, 0], [64, 0], [64, 32]], "<i2")
    faces = b"".join(struct.pack("<6H", c, b, a, 2, 1, 0) for a, b, c in FACES)  # clockwise
    frames = b"".join(
        struct.pack("<6f16s", *scale, *origin, b"stand")
        + b"".join(struct.pack("4B", *(int(200 * size * value) for value in corner), 0) for corner in CUBE)
        for size in (1, 0)
    )
    names = b"".join(skin.encode().ljust(64, b"\0") for skin in skins)
    starts = np.cumsum([68, len(names), coordinates.nbytes, len(faces), len(frames)]).tolist()
    header = struct.pack(
        "<4s16i", b"IDP2", 8, 64, 32, len(frames) // 2, len(skins), len(CUBE), len(coordinates), len(FACES), 0, 2,
        *starts[:4], starts[4], starts[4],
    )  # fmt: skip
    return header + names + coordinates.tobytes() + faces + frames


def g3d(meshes: Sequence[dict[str, Any]]) -> bytes:
    """Cubes with two frames (the second is empty): `texture`, `color`, `opacity`, `team` and `size` of each."""
    content = b"G3D\4" + struct.pack("<HB", len(meshes), 0)
    for mesh in meshes:
        texture, points = mesh.get("texture"), CUBE * mesh.get("size", 1.0)
        content += struct.pack(
            "<64s3I3f3f2f2I", b"mesh", 2, len(CUBE), 3 * len(FACES), *mesh.get("color", (1, 1, 1)), 0, 0, 0, 1.0,
            mesh.get("opacity", 1.0), int(mesh.get("team", False)), int(texture is not None),
        )  # fmt: skip
        content += texture.encode().ljust(64, b"\0") if texture is not None else b""
        content += np.concatenate([points, 0 * points]).astype("<f4").tobytes()
        content += np.concatenate([points - 0.5, points - 0.5]).astype("<f4").tobytes()
        content += CUBE[:, :2].astype("<f4").tobytes() if texture is not None else b""
        content += np.array(FACES, "<u4").tobytes()
    return content


def pmd(
    points: np.ndarray = CUBE, faces: Sequence[Sequence[int]] = FACES, bones: Sequence[Sequence[float]] = (),
    props: Sequence[tuple[str, Sequence[float], int]] = (),
) -> bytes:  # fmt: skip
    """A mesh of version 3: texture coordinates are x and y; bones and props: translation and quaternion x, y, z, w."""
    vertices = b"".join(
        struct.pack("<3f3f2f4B4f", *point, 0, 0, 1, point[0], point[1], 255, 255, 255, 255, 0, 0, 0, 0)
        for point in points
    )
    content = struct.pack("<I", len(points)) + vertices + struct.pack("<I", len(faces))
    content += np.array(faces, "<u2").tobytes() + struct.pack("<I", len(bones))
    content += b"".join(struct.pack("<7f", *bone) for bone in bones) + struct.pack("<I", len(props))
    for name, place, bone in props:
        content += struct.pack("<I", len(name)) + name.encode() + struct.pack("<7fB", *place, bone)
    return b"PSMD" + struct.pack("<2I", 3, len(content)) + content


def png_bytes(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def public_zip(path: Path, members: dict[str, str | bytes]) -> Path:
    """A zip with members below `art/`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"art/{name}", content)
    return path


def sphere(rings: int = 12) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Points and triangles of a globe: enough of them to be listed."""
    angles = np.linspace(0, np.pi, rings + 1)
    points = np.array([
        (np.sin(a) * np.cos(b), np.cos(a), np.sin(a) * np.sin(b))
        for a in angles for b in np.linspace(0, 2 * np.pi, rings + 1)
    ])  # fmt: skip
    row = rings + 1
    faces = []
    for i in range(rings):
        for j in range(rings):
            a, b, c, d = i * row + j, i * row + j + 1, (i + 1) * row + j, (i + 1) * row + j + 1
            faces += [(a, b, d), (a, d, c)]
    return points, faces
