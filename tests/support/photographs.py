"""Synthetic photographs."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def disc(
    width: int = 64, height: int = 48, radius: float = 15, color: tuple[int, int, int] = (200, 60, 20)
) -> Image.Image:
    """An opaque disc in the upper left; the transparent pixels around it are green."""
    y, x = np.mgrid[:height, :width] + 0.5
    inside = (x - 0.4 * width) ** 2 + (y - 0.45 * height) ** 2 < radius**2
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[...] = (0, 255, 0, 0)
    rgba[inside] = (*color, 255)
    return Image.fromarray(rgba)


def saved(folder: Path, image: Image.Image, name: str = "a.png", **options: Any) -> Path:
    """Save an image and return its file; `options` are those of Pillow."""
    image.save(folder / name, **options)
    return folder / name
