"""Small scenes for the rasterizer, glTF files written by hand, and colors computed in float64."""

import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from z1g.meshes.raster.context import NoOpenGL
from z1g.meshes.raster.draw import Rasterizer
from z1g.meshes.raster.scene import Material, Part

FOV_DEG = 49.1
DISTANCE = 2.0
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
COMPONENTS = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}
CORNERS = np.array([[-1, 1], [1, 1], [1, -1], [-1, -1]], np.float64)
"""Of a square, from the top left, clockwise: like its texture coordinates, whose origin is at the top left."""
UV = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
FACES = np.array([[0, 2, 1], [0, 3, 2]])
"""Counterclockwise seen from +z."""


def rasterizer(resolution: int, **options: Any) -> Rasterizer:
    """A rasterizer; the test is skipped where OpenGL is missing."""
    try:
        return Rasterizer(resolution, **options)
    except NoOpenGL as error:
        pytest.skip(str(error))


def in_software(renderer: str) -> bool:
    """Whether Mesa's rasterizer on the CPU draws. Graphics cards round corners to 1/256 of a pixel."""
    return "llvmpipe" in renderer


def camera(azimuth_deg: float = 0.0) -> np.ndarray:
    """c2w [4,4] of a camera that looks at the origin from the height of 0; azimuth 0 is +z."""
    angle = np.radians(azimuth_deg)
    c, s = np.cos(angle), np.sin(angle)
    c2w = np.eye(4)
    c2w[:3, 0], c2w[:3, 1], c2w[:3, 2] = (c, 0, -s), (0, -1, 0), (-s, 0, -c)
    c2w[:3, 3] = DISTANCE * np.array([s, 0, c])
    return c2w


def square(z: float, half: float = 0.3, material: Material | None = None, uv: np.ndarray = UV) -> Part:
    """A square parallel to the image of camera 0."""
    positions = np.column_stack([half * CORNERS, np.full(4, z)])
    return Part(positions, FACES, None, uv, None, material or Material())


def drawn(rasterizer: Rasterizer, parts: Sequence[Part], azimuth_deg: float = 0.0) -> np.ndarray:
    """The image [H,W,4] of one camera."""
    with rasterizer.load(parts) as drawing:
        return drawing.image(camera(azimuth_deg), FOV_DEG)


def pixel(resolution: int, x: float, y: float, z: float) -> tuple[int, int]:
    """Row and column of the pixel of camera 0 that shows a point."""
    scale = resolution / (2 * np.tan(np.radians(FOV_DEG) / 2)) / (DISTANCE - z)
    return int(resolution / 2 - y * scale), int(resolution / 2 + x * scale)


def encoded(linear: Any) -> np.ndarray:
    """sRGB values in [0,255] of linear ones (IEC 61966-2-1)."""
    linear = np.asarray(linear, np.float64)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def decoded(srgb: Any) -> np.ndarray:
    """Linear values of sRGB values in [0,255]."""
    values = np.asarray(srgb, np.float64) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def png(image: np.ndarray | Image.Image) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, "PNG")
    return buffer.getvalue()


class Gltf:
    """A glTF document that grows."""

    def __init__(self, **document: Any) -> None:
        self.document: dict[str, Any] = {"asset": {"version": "2.0"}, "bufferViews": [], "accessors": [], **document}
        self.binary = b""

    def view(self, content: bytes) -> int:
        self.binary += bytes(-len(self.binary) % 4)
        self.document["bufferViews"].append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(content)})
        self.binary += content
        return len(self.document["bufferViews"]) - 1

    def accessor(self, values: Any, kind: str = "float32", **further: Any) -> int:
        array = np.asarray(values, kind)
        width = 1 if array.ndim == 1 else array.shape[1]
        self.document["accessors"].append({
            "bufferView": self.view(array.tobytes()), "componentType": COMPONENTS[kind], "count": len(array),
            "type": TYPES[width], **further,
        })  # fmt: skip
        return len(self.document["accessors"]) - 1

    def image(self, content: bytes) -> int:
        """Index of a new image; the texture of the same index shows it."""
        images = self.document.setdefault("images", [])
        images.append({"bufferView": self.view(content), "mimeType": "image/png"})
        self.document.setdefault("textures", []).append({"source": len(images) - 1})
        return len(images) - 1

    def mesh(self, attributes: dict[str, int], **primitive: Any) -> None:
        """A node of one primitive."""
        self.document.setdefault("meshes", []).append({"primitives": [{"attributes": attributes, **primitive}]})
        meshes = len(self.document["meshes"])
        self.document.setdefault("nodes", []).append({"mesh": meshes - 1})
        self.document["scenes"] = [{"nodes": list(range(meshes))}]

    def glb(self) -> bytes:
        document = {**self.document, "buffers": [{"byteLength": len(self.binary)}]}
        text = json.dumps(document).encode()
        text += b" " * (-len(text) % 4)
        binary = self.binary + bytes(-len(self.binary) % 4)
        length = 12 + 8 + len(text) + 8 + len(binary)
        return (
            struct.pack("<4sII", b"glTF", 2, length)
            + struct.pack("<I4s", len(text), b"JSON") + text
            + struct.pack("<I4s", len(binary), b"BIN\0") + binary
        )  # fmt: skip

    def save(self, path: Path) -> Path:
        path.write_bytes(self.glb())
        return path


def card(material: dict[str, Any] | None = None, image: bytes | None = None, thick: float = 0.05) -> Gltf:
    """A box of 2 x 2 x `thick` whose front and back have the texture, seen from each side."""
    gltf = Gltf()
    if image is not None:
        gltf.image(image)
    if material is not None:
        gltf.document["materials"] = [material]
    front = np.column_stack([CORNERS, np.full(4, thick / 2)])
    positions = np.concatenate([front, front * (-1, 1, -1)])
    normals = np.repeat([[0, 0, 1.0], [0, 0, -1.0]], 4, axis=0)
    attributes = {
        "POSITION": gltf.accessor(positions, min=positions.min(0).tolist(), max=positions.max(0).tolist()),
        "NORMAL": gltf.accessor(normals), "TEXCOORD_0": gltf.accessor(np.concatenate([UV, UV])),
    }  # fmt: skip
    indices = gltf.accessor(np.concatenate([FACES, FACES + 4]).reshape(-1), "uint16")
    gltf.mesh(attributes, indices=indices, **({} if material is None else {"material": 0}))
    return gltf
