"""Textures of the corpus: the part of an atlas that an object uses, reduced to a largest side."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from z1g.meshes.raster.scene import Part, Texture

MARGIN = 4
"""Texels around the used part, for filters."""
WORTHWHILE = 0.9
"""The used part is cut out if its area is below this fraction of the image."""


def fitted(parts: Sequence[Part], largest: int) -> list[Part]:
    """The parts with textures of at most `largest` texels a side, cut to what the texture coordinates reach."""
    users: dict[int, list[int]] = {}
    for index, part in enumerate(parts):
        if part.material.texture is not None and part.uv is not None:
            users.setdefault(id(part.material.texture), []).append(index)
    result = list(parts)
    for indices in users.values():
        texture = parts[indices[0]].material.texture
        assert texture is not None
        corners = [_reached(parts[i]) for i in indices]
        cut, (scale, offset) = _cut(texture, np.concatenate(corners))
        small = replace(cut, image=reduced(cut.image, largest))
        for i in indices:
            material = replace(parts[i].material, texture=small)
            uv = parts[i].uv
            assert uv is not None
            result[i] = replace(parts[i], material=material, uv=uv * scale + offset)
    return result


def _reached(part: Part) -> NDArray[np.float64]:
    assert part.uv is not None
    return part.uv[np.unique(part.triangles)]


def _cut(texture: Texture, uv: NDArray[np.float64]) -> tuple[Texture, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The part of a texture that coordinates [N,2] within one tile reach, and their new scale and offset [2]."""
    height, width, _ = texture.image.shape
    size = np.array([width, height], np.float64)
    same = texture, (np.ones(2), np.zeros(2))
    if not len(uv) or not np.isfinite(uv).all():
        return same
    low, high = uv.min(axis=0), uv.max(axis=0)
    tile = np.floor((low + high) / 2)
    if (low < tile).any() or (high > tile + 1).any():
        return same
    begin = np.clip(np.floor((low - tile) * size) - MARGIN, 0, None).astype(int)
    end = np.minimum(np.ceil((high - tile) * size) + MARGIN, size).astype(int)
    if np.prod(end - begin) >= WORTHWHILE * np.prod(size):
        return same
    image = np.ascontiguousarray(texture.image[begin[1] : end[1], begin[0] : end[0]])
    scale = size / (end - begin)
    offset = -tile * scale - begin / (end - begin)
    return replace(texture, image=image, wrap=("clamp", "clamp")), (scale, offset)


def reduced(image: NDArray[np.uint8], largest: int) -> NDArray[np.uint8]:
    """An image [H,W,4] with at most `largest` pixels a side.

    Colors and alpha are resized apart: under transparent texels, cut-outs have the colors of their neighbors.
    """
    height, width, _ = image.shape
    factor = largest / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    color = Image.fromarray(np.ascontiguousarray(image[..., :3])).resize(size, Image.Resampling.LANCZOS)
    alpha = Image.fromarray(np.ascontiguousarray(image[..., 3])).resize(size, Image.Resampling.LANCZOS)
    return np.dstack([np.asarray(color), np.asarray(alpha)])
