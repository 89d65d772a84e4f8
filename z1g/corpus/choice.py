"""Which objects are fit to be listed: by their geometry and materials, and by a small image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.raster.scene import MeshError, Part

TRIANGLES = (150, 60_000)
THIN, NARROW = 0.03, 0.08
"""Least smallest and middle extent of the bounding box, as fractions of the largest."""
TEXTURED = 0.5
"""Least fraction of the area with textures; below, the mesh needs two textures or colors."""
SILHOUETTE = 64
"""Side of the image that is looked at, pixels."""
LEAST_COVER = 0.03
MOST_BLOBS = 3
SMALLEST_BLOB = 3
"""Pixels; smaller blobs are not counted."""
LEAST_VARIATION = 4.0
"""Least standard deviation of a color channel over the silhouette, of 255."""


def require_fit(parts: Sequence[Part]) -> None:
    """Raise MeshError, with a measure, for meshes that are too simple, too large, thin or of one color."""
    count = sum(len(part.triangles) for part in parts)
    if not TRIANGLES[0] <= count <= TRIANGLES[1]:
        raise MeshError(f"{count} triangles; {TRIANGLES[0]} to {TRIANGLES[1]} are listed")
    used = np.concatenate([part.positions[part.triangles].reshape(-1, 3) for part in parts])
    if not np.isfinite(used).all():
        raise MeshError("the mesh has vertices that are not finite numbers (NaN or infinity)")
    smallest, middle, largest = np.sort(np.ptp(used, axis=0))
    if smallest <= THIN * largest or middle <= NARROW * largest:
        raise MeshError(
            f"thin: its extents are 1 to {middle / max(largest, 1e-30):.3f} to {smallest / max(largest, 1e-30):.3f}"
        )
    areas = [_area(part) for part in parts]
    textured = sum(area for area, part in zip(areas, parts, strict=True) if part.material.texture is not None)
    if textured <= TEXTURED * max(sum(areas), 1e-30) and len(_looks(parts)) < 2:
        raise MeshError("one plain color")


def _looks(parts: Sequence[Part]) -> set[Any]:
    """Textures, and distinct colors (in steps of a tenth, sRGB), that parts have; vertex colors count as two."""
    looks: set[Any] = set()
    for part in parts:
        if part.color is not None:
            looks |= {"vertex", "colors"}
        elif part.material.texture is not None:
            looks.add(id(part.material.texture))
        else:
            looks.add(tuple(np.round(np.array(part.material.factor[:3]) ** (1 / 2.2), 1)))
    return looks


def _area(part: Part) -> float:
    a, b, c = (part.positions[part.triangles[:, i]] for i in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 2


def require_seen(image: NDArray[np.uint8]) -> None:
    """Raise MeshError for an image [64,64,4] that is nearly empty, in pieces, or of one color."""
    from scipy import ndimage

    solid = image[..., 3] >= 128
    cover = float(solid.mean())
    if cover < LEAST_COVER:
        raise MeshError(f"its silhouette covers {100 * cover:.1f} % of the image, less than {100 * LEAST_COVER:.0f}")
    labels, _ = ndimage.label(solid, np.ones((3, 3)))
    blobs = int((np.bincount(labels.reshape(-1))[1:] >= SMALLEST_BLOB).sum())
    if blobs > MOST_BLOBS:
        raise MeshError(f"its silhouette has {blobs} separate blobs, more than {MOST_BLOBS}")
    variation = float(image[solid][:, :3].astype(np.float64).std(axis=0).max())
    if variation < LEAST_VARIATION:
        raise MeshError(f"its colors vary by {variation:.1f} of 255, less than {LEAST_VARIATION:.0f}")
