"""Converts one object of a source: reads, checks, reduces, writes and draws it."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from z1g.corpus.choice import SILHOUETTE, require_fit, require_seen
from z1g.corpus.glb import write_glb
from z1g.corpus.source import Item, Source
from z1g.corpus.textures import fitted
from z1g.corpus.welding import geometry_digest, merged, welded
from z1g.geometry.camera import orbit_c2w
from z1g.meshes.raster.draw import Rasterizer
from z1g.meshes.raster.gltf import read_gltf
from z1g.meshes.raster.scene import RADIUS, MeshError, Part, normalized

THUMBNAIL = 2 * SILHOUETTE
ELEVATION_DEG, AZIMUTH_DEG, FOV_DEG = 20.0, 30.0, 40.0
NAME_LENGTH = 48


@dataclass(frozen=True)
class Converted:
    """What became of an item.

    `reason` tells why it is rejected, None if it is not. `file` is its GLB relative to the output, `shape` a digest of
    its geometry, `textures` one of its images, empty without. `group` is the texture file that covers the most of it.
    `thumbnail` [128,128,4] is None if it could not be drawn.
    """

    item: Item
    reason: str | None = None
    file: str = ""
    shape: str = ""
    textures: str = ""
    group: str = ""
    thumbnail: NDArray[np.uint8] | None = None


class Converter:
    """Converts objects of one source into a folder; textures have at most `largest` texels a side."""

    def __init__(self, source: Source, out: Path, largest: int) -> None:
        """Raises NoOpenGL."""
        self._source, self._out, self._largest = source, out, largest
        self._rasterizer = Rasterizer(THUMBNAIL, samples=2)
        self._camera = orbit_c2w(ELEVATION_DEG, AZIMUTH_DEG, RADIUS / math.sin(math.radians(FOV_DEG) / 2))

    def convert(self, item: Item) -> Converted:
        """Write an item's GLB unless there is a reason against it. Raises OSError if it cannot be written."""
        try:
            return self._convert(item)
        except MeshError as error:
            return Converted(item, str(error))
        except MemoryError:
            return Converted(item, "out of memory on this object")
        except OSError:
            raise
        # Nothing in a damaged file has the type that it should have: errors of any kind follow.
        except Exception as error:
            return Converted(item, f"the file is damaged: {type(error).__name__}: {error}")

    def _convert(self, item: Item) -> Converted:
        parts = merged(self._load(item))
        if not parts:
            raise MeshError("the mesh has no faces; the file is empty or truncated")
        require_fit(parts)
        group, textures = self._group(item, parts), _images_digest(parts)
        shape = geometry_digest(parts)
        file = file_of(item)
        write_glb(self._out / file, [part for part in map(welded, fitted(parts, self._largest)) if len(part.triangles)])
        thumbnail, reason = None, None
        try:
            thumbnail = self._drawn(self._out / file)
            require_seen(halved(thumbnail))
        except MeshError as error:
            reason = str(error)
            (self._out / file).unlink()
        return Converted(item, reason, file if reason is None else "", shape, textures, group, thumbnail)

    def _load(self, item: Item) -> list[Part]:
        try:
            return self._source.load(item)
        except OSError as error:
            raise MeshError(f"it cannot be read: {error.strerror or error}") from error

    def _drawn(self, path: Path) -> NDArray[np.uint8]:
        """The image [128,128,4] of what has been written."""
        parts, _ = normalized(read_gltf(path), "y")
        with self._rasterizer.load(parts) as drawing:
            return drawing.image(self._camera, FOV_DEG)

    def _group(self, item: Item, parts: Sequence[Part]) -> str:
        shares: dict[str, float] = {}
        for part in parts:
            if part.material.texture is not None:
                a, b, c = (part.positions[part.triangles[:, i]] for i in range(3))
                file = self._source.texture_file(item, part.material.texture)
                shares[file] = shares.get(file, 0.0) + float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())
        return f"{self._source.name}/{max(shares, key=shares.__getitem__)}" if shares else ""


def file_of(item: Item) -> str:
    """`glb/<category>/<name>-<digest of the key>.glb`: a path that is safe on every system."""
    folder, name = (re.sub("[^A-Za-z0-9]+", "-", text).strip("-") for text in
                    (item.category.partition("/")[2], Path(item.key).stem))  # fmt: skip
    digest = hashlib.sha256(item.key.encode()).hexdigest()[:8]
    return f"glb/{folder or 'other'}/{name[:NAME_LENGTH] or 'object'}-{digest}.glb"


def halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image [2N,2N,4] at half its size [N,N,4], colors weighted by alpha."""
    height, width, _ = image.shape
    blocks = image.reshape(height // 2, 2, width // 2, 2, 4).astype(np.float64)
    alpha = blocks[..., 3:].sum(axis=(1, 3))
    color = (blocks[..., :3] * blocks[..., 3:]).sum(axis=(1, 3)) / np.maximum(alpha, 1)
    half: NDArray[np.uint8] = np.concatenate([color, alpha / 4], axis=-1).round().astype(np.uint8)
    return half


def _images_digest(parts: Sequence[Part]) -> str:
    """SHA-256 of the set of all images, empty if there is none."""
    images = {id(part.material.texture): part.material.texture for part in parts if part.material.texture is not None}
    digests = sorted({hashlib.sha256(texture.image.tobytes()).hexdigest() for texture in images.values()})
    return hashlib.sha256("\n".join(digests).encode()).hexdigest() if digests else ""
