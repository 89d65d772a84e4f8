"""Conversion between sRGB and linear color (IEC 61966-2-1)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_linear(srgb: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Linear values of sRGB values in [0,1]."""
    low, high = srgb / 12.92, ((np.maximum(srgb, 0) + 0.055) / 1.055) ** 2.4
    linear: NDArray[np.float64] = np.where(srgb <= 0.04045, low, high)
    return linear
