"""Images of materials: decoded with limits, 8-bit sRGB with alpha."""

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from z1g.data.png import require_checksums
from z1g.meshes.raster.scene import MeshError

LARGEST_SIDE = 16_384
"""Maximum side of an image, pixels; larger ones are decompression bombs or mistakes."""
LARGEST_USED = 4096
"""Larger images are reduced to this by averaging: renders are much smaller."""


def load_image(source: Path | bytes, name: str) -> NDArray[np.uint8]:
    """The image [H,W,4], straight alpha, top row first. Raises MeshError if it is missing, too large or damaged."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(_file(source)) as image:
            if max(image.size) > LARGEST_SIDE:
                raise MeshError(
                    f"texture {name} has {image.width}x{image.height} pixels, above the limit of {LARGEST_SIDE}"
                )
            require_checksums(_file(source))
            return _rgba(_reduced(image))
    except (MeshError, MemoryError):
        raise
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise MeshError(f"texture missing or unreadable: {name}") from error
    # Decoders raise nearly any exception on damaged files.
    except Exception as error:
        raise MeshError(f"texture missing or unreadable: {name} ({error})") from error


def _file(source: Path | bytes) -> Path | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _reduced(image: Image.Image) -> Image.Image:
    factor = -(-max(image.size) // LARGEST_USED)
    if factor == 1:
        return image
    return (image.convert("RGBA") if image.mode == "P" else image).reduce(factor)


def _rgba(image: Image.Image) -> NDArray[np.uint8]:
    # Pillow would clip 16-bit gray images to 255.
    if image.mode.startswith("I"):
        gray = (np.asarray(image, np.float64) / 257).round().clip(0, 255).astype(np.uint8)
        return np.stack([gray, gray, gray, np.full_like(gray, 255)], axis=-1)
    if image.mode == "F":
        raise ValueError("an image of floating-point values")
    return np.ascontiguousarray(image.convert("RGBA"))
