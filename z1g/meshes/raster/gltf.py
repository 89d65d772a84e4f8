"""Reader of glTF 2.0 files (.glb, .gltf): the default scene's triangles with base color, texture and vertex colors.

Reads what decides on a surface's own color; not lights, cameras, and materials' roughness, metal, emission and normal
maps. Sections refer to the specification (Khronos Group, glTF 2.0, 2021).
"""

import base64
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.raster.images import load_image
from z1g.meshes.raster.pose import Pose
from z1g.meshes.raster.scene import AlphaMode, Material, MeshError, Part, Texture, Wrap, require_few

MAGIC, JSON_CHUNK, BINARY_CHUNK = b"glTF", 0x4E4F534A, 0x004E4942
COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
WRAPS: dict[int, Wrap] = {10497: "repeat", 33071: "clamp", 33648: "mirror"}
NEAREST = 9728
TRIANGLES, STRIP, FAN = 4, 5, 6
MODES: dict[str, AlphaMode] = {"OPAQUE": "opaque", "MASK": "mask", "BLEND": "blend"}
UNDERSTOOD = {
    "KHR_materials_pbrSpecularGlossiness", "KHR_materials_unlit", "KHR_mesh_quantization", "KHR_texture_transform",
    "EXT_texture_webp", "KHR_materials_clearcoat", "KHR_materials_emissive_strength", "KHR_materials_ior",
    "KHR_materials_sheen", "KHR_materials_specular", "KHR_materials_transmission", "KHR_materials_volume",
    "KHR_lights_punctual", "KHR_materials_variants", "KHR_materials_iridescence", "KHR_materials_anisotropy",
}  # fmt: skip
"""Extensions that may be required by a file: applied here, or without influence on the base color."""
MOST = 1 << 30
"""Largest count or size in bytes that is read."""
LARGEST_DEPTH = 500

Array = NDArray[Any]


class Unsupported(MeshError):
    """The file is valid but needs a feature that this reader does not have; Blender may read it."""


def read_gltf(path: Path, limit: int = MOST) -> list[Part]:
    """All triangles of the default scene, at the first frame of its first animation.

    limit: number of triangles above which the file is refused before they are read. Raises MeshError for damaged files,
    Unsupported for features not read.
    """
    try:
        document, binary = _open(path)
        return list(_Reader(path, document, binary, limit).parts())
    except (MeshError, MemoryError):
        raise
    # Nothing in a damaged file has the type that it should have: errors of any kind follow.
    except Exception as error:
        raise MeshError(f"the file is damaged: {type(error).__name__}: {error}") from error


def _open(path: Path) -> tuple[dict[str, Any], bytes | None]:
    content = path.read_bytes()
    if content[:4] != MAGIC:
        return json.loads(content), None
    chunks: dict[int, bytes] = {}
    offset = 12
    while offset + 8 <= len(content):
        size, kind = struct.unpack_from("<II", content, offset)
        if offset + 8 + size > len(content):
            raise MeshError("the file is truncated")
        chunks.setdefault(kind, content[offset + 8 : offset + 8 + size])
        offset += 8 + size + (-size % 4)
    return json.loads(chunks[JSON_CHUNK]), chunks.get(BINARY_CHUNK)


class _Reader:
    def __init__(self, path: Path, document: dict[str, Any], binary: bytes | None, limit: int) -> None:
        self._path, self._document, self._binary = path, document, binary
        unknown = set(document.get("extensionsRequired", [])) - UNDERSTOOD
        if unknown:
            raise Unsupported(f"it needs {', '.join(sorted(unknown))}")
        self._limit, self._count = limit, 0
        self._walked: set[int] = set()
        self._pose = Pose(document, self._accessor)
        self._buffer = cache(self._read_buffer)
        self._material = cache(self._read_material)
        self._image = cache(self._read_image)

    def parts(self) -> Iterator[Part]:
        scenes, nodes = self._document.get("scenes", []), self._document.get("nodes", [])
        if scenes:
            roots = scenes[self._document.get("scene", 0)].get("nodes", [])
        else:
            children = {child for node in nodes for child in node.get("children", [])}
            roots = [i for i in range(len(nodes)) if i not in children]
        for root in roots:
            yield from self._walk(root, 0)

    def _walk(self, index: int, depth: int) -> Iterator[Part]:
        if depth > LARGEST_DEPTH or index in self._walked:
            raise MeshError(f"node {index} has several parents, or nodes are nested deeper than {LARGEST_DEPTH}")
        self._walked.add(index)
        node = self._document["nodes"][index]
        if "mesh" in node:
            for primitive in self._document["meshes"][node["mesh"]]["primitives"]:
                part = self._primitive(primitive, index)
                if part is not None:
                    yield self._pose.placed(part, primitive["attributes"], index)
        for child in node.get("children", []):
            yield from self._walk(child, depth + 1)

    def _primitive(self, primitive: dict[str, Any], node: int) -> Part | None:
        mode, attributes = primitive.get("mode", TRIANGLES), primitive["attributes"]
        if mode not in (TRIANGLES, STRIP, FAN) or "POSITION" not in attributes:
            return None
        stored = self._accessor(attributes["POSITION"])
        counted = primitive.get("indices", attributes["POSITION"])
        self._require_few(_count(self._document["accessors"][counted]["count"]), mode)
        positions = stored.astype(np.float64)
        indices = self._accessor(primitive["indices"])[:, 0] if "indices" in primitive else np.arange(len(positions))
        triangles = _triangles(indices.astype(np.int64), mode)
        if len(triangles) and triangles.max() >= len(positions):
            raise MeshError("a face refers to a vertex that does not exist")
        material, channel, transform = self._material(primitive.get("material"))
        uv = self._optional(attributes, f"TEXCOORD_{channel}", len(positions))
        if uv is not None:
            uv = np.column_stack([uv[:, :2], np.ones(len(uv))]) @ transform.T[:, :2]
        elif material.texture is not None:
            # Without coordinates every vertex is at (0, 0), as in Blender.
            uv = np.tile(transform[:2, 2], (len(positions), 1))
        color = self._optional(attributes, "COLOR_0", len(positions))
        color = None if color is None else np.nan_to_num(color, posinf=0.0, neginf=0.0)
        if color is not None and color.shape[1] == 3:
            color = np.column_stack([color, np.ones(len(color))])
        part = Part(positions, triangles, self._optional(attributes, "NORMAL", len(positions)), uv, color, material)
        return self._pose.morphed(part, primitive, node)

    def _require_few(self, indices: int, mode: int) -> None:
        self._count += indices // 3 if mode == TRIANGLES else indices
        require_few(self._count, self._limit)

    def _optional(self, attributes: dict[str, int], name: str, n: int) -> Array | None:
        if name not in attributes:
            return None
        values = self._accessor(attributes[name])
        if len(values) != n:
            raise MeshError(f"{name} has {len(values)} entries for {n} vertices")
        return values.astype(np.float64)

    def _accessor(self, index: int) -> Array:
        """Values [N,K] of an accessor, normalized integers as floats (section 3.6.2)."""
        accessor = self._document["accessors"][index]
        kind, width, count = (
            np.dtype(COMPONENTS[accessor["componentType"]]),
            WIDTHS[accessor["type"]],
            accessor["count"],
        )
        if "bufferView" in accessor:
            values = self._strided(accessor["bufferView"], accessor.get("byteOffset", 0), kind, count, width)
        else:
            values = np.zeros((_count(count), width), kind)
        if "sparse" in accessor:
            values = self._sparse(values.copy(), accessor["sparse"], kind, width)
        if accessor.get("normalized") and kind.kind != "f":
            return np.maximum(values.astype(np.float64) / np.iinfo(kind).max, -1.0)
        return values

    def _sparse(self, values: Array, sparse: dict[str, Any], kind: np.dtype[Any], width: int) -> Array:
        at, new = sparse["indices"], sparse["values"]
        rows = self._strided(at["bufferView"], at.get("byteOffset", 0), np.dtype(COMPONENTS[at["componentType"]]),
                             sparse["count"], 1)[:, 0]  # fmt: skip
        values[rows] = self._strided(new["bufferView"], new.get("byteOffset", 0), kind, sparse["count"], width)
        return values

    def _strided(self, view: int, offset: int, kind: np.dtype[Any], count: int, width: int) -> Array:
        content, stride = self._view(view)
        step = stride or kind.itemsize * width
        if count and offset + (_count(count) - 1) * step + kind.itemsize * width > len(content):
            raise MeshError("an accessor reads beyond its buffer")
        return np.ndarray((count, width), kind, content, offset, (step, kind.itemsize))

    def _view(self, index: int) -> tuple[bytes, int | None]:
        view = self._document["bufferViews"][index]
        if "EXT_meshopt_compression" in view.get("extensions", {}):
            raise Unsupported("it needs EXT_meshopt_compression")
        content = self._buffer(view["buffer"])
        begin, length = _count(view.get("byteOffset", 0)), _count(view["byteLength"])
        if begin + length > len(content):
            raise MeshError("a buffer view reads beyond its buffer")
        return content[begin : begin + length], view.get("byteStride")

    def _read_buffer(self, index: int) -> bytes:
        uri = self._document["buffers"][index].get("uri")
        if uri is not None:
            return self._resource(uri)
        if self._binary is None or index:
            raise MeshError(f"buffer {index} is missing")
        return self._binary

    def _resource(self, uri: str) -> bytes:
        """Content of a URI: data inside the document, or a file relative to it (which files may be read is checked
        before, in `z1g/meshes/references.py`).
        """
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(",")[2])
        try:
            return (self._path.parent / unquote(uri)).read_bytes()
        except OSError as error:
            raise MeshError(f"buffer or texture missing or unreadable: {unquote(uri)}") from error

    def _read_material(self, index: int | None) -> tuple[Material, int, Array]:
        """A material, the number of its texture coordinates and their transform [3,3]."""
        if index is None:
            # Section 3.9: the default material is white; Blender's too.
            return Material(), 0, np.eye(3)
        content = self._document["materials"][index]
        factor, texture = _base_color(content)
        mode = MODES[content.get("alphaMode", "OPAQUE")]
        material = Material(factor, None, mode, float(content.get("alphaCutoff", 0.5)))
        if texture is None:
            return material, 0, np.eye(3)
        transform = texture.get("extensions", {}).get("KHR_texture_transform", {})
        channel = transform.get("texCoord", texture.get("texCoord", 0))
        return replace(material, texture=self._texture(texture["index"])), channel, _uv_transform(transform)

    def _texture(self, index: int) -> Texture:
        texture = self._document["textures"][index]
        source = texture.get("extensions", {}).get("EXT_texture_webp", {}).get("source", texture.get("source"))
        if source is None:
            raise Unsupported(f"a texture has a format of {', '.join(texture.get('extensions', ['unknown']))}")
        sampler = self._document["samplers"][texture["sampler"]] if "sampler" in texture else {}
        wrap = (WRAPS[sampler.get("wrapS", 10497)], WRAPS[sampler.get("wrapT", 10497)])
        return Texture(self._image(source), wrap, sampler.get("magFilter") == NEAREST)

    def _read_image(self, index: int) -> Array:
        image = self._document["images"][index]
        name = image.get("name") or unquote(image.get("uri", ""))[:80] or f"image {index}"
        if "bufferView" in image:
            return load_image(self._view(image["bufferView"])[0], name)
        return load_image(self._resource(image["uri"]), name)


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= MOST:
        raise ValueError(f"{value} is not a count up to {MOST}")
    return value


def _base_color(material: dict[str, Any]) -> tuple[tuple[float, float, float, float], dict[str, Any] | None]:
    """Factor and texture of the base color (section 3.9.2); of specular-glossiness materials, the diffuse color."""
    older = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
    if older is not None:
        factor, texture = older.get("diffuseFactor", (1, 1, 1, 1)), older.get("diffuseTexture")
    else:
        surface = material.get("pbrMetallicRoughness", {})
        factor, texture = surface.get("baseColorFactor", (1, 1, 1, 1)), surface.get("baseColorTexture")
    red, green, blue, alpha = map(float, factor)
    return (red, green, blue, alpha), texture


def _uv_transform(transform: dict[str, Any]) -> Array:
    """T · R · S of KHR_texture_transform, [3,3]."""
    (x, y), angle, (u, v) = (
        transform.get("offset", (0, 0)),
        transform.get("rotation", 0.0),
        transform.get("scale", (1, 1)),
    )
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c * u, s * v, x], [-s * u, c * v, y], [0, 0, 1.0]])


def _triangles(indices: Array, mode: int) -> Array:
    """Triangles [T,3] of a list, strip or fan of indices (section 3.7.2.1)."""
    if mode == TRIANGLES:
        return indices[: len(indices) // 3 * 3].reshape(-1, 3)
    if len(indices) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == FAN:
        return np.stack([np.full(len(indices) - 2, indices[0]), indices[1:-1], indices[2:]], axis=1)
    strip = np.stack([indices[:-2], indices[1:-1], indices[2:]], axis=1)
    strip[1::2] = strip[1::2, [1, 0, 2]]
    return strip
