"""Writing parts as a binary glTF 2.0 file with its images inside, as small as that is without extensions.

Trimesh writes such files, too, but with 32-bit indices and each image once a part.
"""

import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from z1g.core.files import atomic_file
from z1g.meshes.raster.scene import Material, Part, Texture, Wrap

JPEG_QUALITY = 90
SHORT, LONG, FLOAT = 5123, 5125, 5126
ARRAY_BUFFER, ELEMENT_BUFFER = 34962, 34963
WRAPS: dict[Wrap, int] = {"repeat": 10497, "clamp": 33071, "mirror": 33648}
NEAREST, LINEAR, LINEAR_MIPMAPS = 9728, 9729, 9987
MODES = {"opaque": "OPAQUE", "mask": "MASK", "blend": "BLEND"}


def write_glb(path: Path, parts: Sequence[Part]) -> None:
    """Write parts (y-up) with positions, texture coordinates, colors and materials; normals are left out."""
    document = _Document()
    for part in parts:
        document.add(part)
    with atomic_file(path, durable=False) as temporary:
        temporary.write_bytes(document.content())


class _Document:
    def __init__(self) -> None:
        self._binary = bytearray()
        self._views: list[dict[str, Any]] = []
        self._lists: dict[str, list[dict[str, Any]]] = {}
        self._primitives: list[dict[str, Any]] = []
        self._known: dict[Any, int] = {}

    def add(self, part: Part) -> None:
        """A primitive of the only mesh."""
        attributes = {"POSITION": self._accessor(part.positions, bounds=True)}
        if part.uv is not None and part.material.texture is not None:
            attributes["TEXCOORD_0"] = self._accessor(part.uv)
        if part.color is not None:
            attributes["COLOR_0"] = self._accessor(part.color)
        small = len(part.positions) < 1 << 16
        indices = part.triangles.reshape(-1).astype("<u2" if small else "<u4")
        view = self._view(indices.tobytes(), ELEMENT_BUFFER)
        index = self._append("accessors", {
            "bufferView": view, "componentType": SHORT if small else LONG, "count": len(indices), "type": "SCALAR",
        })  # fmt: skip
        material = self._once(("material", id(part.material)), "materials", lambda: self._material(part.material))
        self._primitives.append({"attributes": attributes, "indices": index, "material": material})

    def content(self) -> bytes:
        """The file."""
        document = {
            "asset": {"version": "2.0", "generator": "z1g"}, "scene": 0, "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}], "meshes": [{"primitives": self._primitives}],
            **self._lists, "bufferViews": self._views, "buffers": [{"byteLength": len(self._binary)}],
        }  # fmt: skip
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        binary = bytes(self._binary) + bytes(-len(self._binary) % 4)
        return b"".join([
            struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(binary)),
            struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", len(binary), b"BIN\0"), binary,
        ])  # fmt: skip

    def _append(self, name: str, value: dict[str, Any]) -> int:
        values = self._lists.setdefault(name, [])
        values.append(value)
        return len(values) - 1

    def _once(self, key: Any, name: str, make: Any) -> int:
        if key not in self._known:
            self._known[key] = self._append(name, make())
        return self._known[key]

    def _view(self, content: bytes, target: int | None = None) -> int:
        self._binary += bytes(-len(self._binary) % 4)
        view = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": len(content)}
        self._views.append(view if target is None else {**view, "target": target})
        self._binary += content
        return len(self._views) - 1

    def _accessor(self, values: NDArray[np.float64], bounds: bool = False) -> int:
        stored = np.ascontiguousarray(values, "<f4")
        accessor: dict[str, Any] = {
            "bufferView": self._view(stored.tobytes(), ARRAY_BUFFER), "componentType": FLOAT, "count": len(stored),
            "type": f"VEC{stored.shape[1]}",
        }  # fmt: skip
        if bounds:
            # Required of positions (section 3.7.2.1).
            accessor |= {"min": stored.min(axis=0).tolist(), "max": stored.max(axis=0).tolist()}
        return self._append("accessors", accessor)

    def _material(self, material: Material) -> dict[str, Any]:
        surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 0.9}
        if material.factor != (1.0, 1.0, 1.0, 1.0):
            surface["baseColorFactor"] = [round(value, 5) for value in material.factor]
        if material.texture is not None:
            texture = material.texture
            surface["baseColorTexture"] = {
                "index": self._once(("texture", id(texture)), "textures", lambda: self._texture(texture))
            }
        content: dict[str, Any] = {"pbrMetallicRoughness": surface, "doubleSided": True}
        if material.alpha_mode != "opaque":
            content["alphaMode"] = MODES[material.alpha_mode]
        if material.alpha_mode == "mask" and material.cutoff != 0.5:
            content["alphaCutoff"] = material.cutoff
        return content

    def _texture(self, texture: Texture) -> dict[str, Any]:
        sampler = {
            "magFilter": NEAREST if texture.nearest else LINEAR, "minFilter": LINEAR_MIPMAPS,
            "wrapS": WRAPS[texture.wrap[0]], "wrapT": WRAPS[texture.wrap[1]],
        }  # fmt: skip
        sampled = self._once(("sampler", *sampler.values()), "samplers", lambda: sampler)
        image = self._once(("image", id(texture.image)), "images", lambda: self._image(texture.image))
        return {"sampler": sampled, "source": image}

    def _image(self, image: NDArray[np.uint8]) -> dict[str, Any]:
        kind, content = encoded(image)
        return {"bufferView": self._view(content), "mimeType": f"image/{kind}"}


def encoded(image: NDArray[np.uint8]) -> tuple[str, bytes]:
    """An image [H,W,4] as PNG if it has alpha or few colors, else as JPEG."""
    buffer = io.BytesIO()
    pixels = Image.fromarray(image)
    if (image[..., 3] < 255).any():
        pixels.save(buffer, "PNG")
        return "png", buffer.getvalue()
    pixels = pixels.convert("RGB")
    if pixels.width * pixels.height <= 1024 or pixels.getcolors(64) is not None:
        pixels.save(buffer, "PNG")
        return "png", buffer.getvalue()
    pixels.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "jpeg", buffer.getvalue()
