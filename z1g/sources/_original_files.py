"""Files of the original's rendered scenes: images and pickled camera angles, read without executing pickled code."""

from __future__ import annotations

import io
import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from z1g.core.files import require_regular
from z1g.data.png import require_checksums
from z1g.data.shards import BrokenObject

LARGEST_BYTES = 65_536
"""Size limit of a camera file, which has three numbers."""
LARGEST_SIDE = 8192
"""Maximum side of an image, pixels; larger ones are decompression bombs or mistakes."""
ANGLES = ("elevation", "azimuth", "radius")


def read_angles(path: Path) -> dict[str, float]:
    """Elevation and azimuth in degrees and the radius from `NNN.npy`, a dict pickled by NumPy.

    Raises BrokenObject if the file is missing, has other content, or its pickle refers to other callables.
    """
    try:
        require_regular(path)
        if path.stat().st_size > LARGEST_BYTES:
            raise BrokenObject(f"{path} is larger than a camera file can be")
        value = _unpickle(path.read_bytes())
    except OSError as error:
        raise BrokenObject(f"{path} cannot be read: {error.strerror}") from error
    # Unpickling can raise nearly any exception.
    except (pickle.UnpicklingError, ValueError, TypeError, EOFError, AttributeError, KeyError, IndexError,
            ImportError, MemoryError, OverflowError, RecursionError) as error:  # fmt: skip
        raise BrokenObject(f"{path} is not a camera: {error}") from error
    if not isinstance(value, dict) or not set(ANGLES) <= value.keys():
        raise BrokenObject(f"{path} is not a dict of {', '.join(ANGLES)}")
    try:
        angles = {name: float(np.asarray(value[name]).reshape(())) for name in ANGLES}
    except (TypeError, ValueError) as error:
        raise BrokenObject(f"{path}: {error}") from error
    if not all(math.isfinite(x) for x in angles.values()) or angles["radius"] <= 0:
        raise BrokenObject(f"{path}: {angles} is not a camera")
    return angles


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image [H,W,4] with straight alpha.

    Raises BrokenObject if it is too large, cannot be decoded or has no alpha channel.
    """
    try:
        require_regular(path)
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            if max(image.size) > LARGEST_SIDE:
                raise BrokenObject(f"{path} is {image.width}x{image.height} pixels, above the limit of {LARGEST_SIDE}")
            if image.mode != "RGBA":
                raise BrokenObject(f"{path} has mode {image.mode}, not RGBA")
            require_checksums(path)
            return np.asarray(image)
    except Image.DecompressionBombError as error:
        raise BrokenObject(f"{path} is too large: {error}") from error
    except (OSError, SyntaxError, ValueError, MemoryError) as error:  # a comment that is a bomb is a ValueError
        raise BrokenObject(f"{path} is not a complete image: {error}") from error


def _unpickle(content: bytes) -> Any:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if not dtype.hasobject or math.prod(shape) != 1:
        raise ValueError(f"an array of {dtype}, shape {shape}, instead of one pickled object")
    value = _Restricted(stream).load()
    return value.item() if isinstance(value, np.ndarray) else value


class _Restricted(pickle.Unpickler):
    """Loads dicts, strings, numbers and arrays; any other global in the file is an error before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        parts = module.removeprefix("numpy.")
        if parts != module or module == "numpy":
            allowed = NUMPY.get((parts.replace("_core", "core"), name))
            if allowed is not None:
                return allowed
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")


NDARRAY = "numpy.ndarray"
"""Placeholder for the class, which a pickle may refer to but not call: a call could allocate an array of any size."""


def _empty_array(subtype: object, shape: tuple[int, ...], code: bytes) -> NDArray[Any]:
    """Replaces NumPy's `_reconstruct` for plain arrays only; the pickle's state fills the array."""
    if subtype is not NDARRAY or tuple(shape) != (0,):
        raise pickle.UnpicklingError(f"an array of {subtype}, shape {shape}")
    return np.ndarray((0,), "b")


def _scalar(dtype: np.dtype[Any], content: bytes) -> Any:
    if not isinstance(dtype, np.dtype) or dtype.kind not in "fiub":
        raise pickle.UnpicklingError(f"a number of type {dtype}")
    return np.frombuffer(content, dtype, count=1)[0]


def _dtype(code: str, *flags: bool) -> np.dtype[Any]:
    if not isinstance(code, str) or len(code) > 3:
        raise pickle.UnpicklingError(f"a type {code!r}")
    return np.dtype(code, *flags)


def _encode(text: str, encoding: str) -> bytes:
    """Replaces `_codecs.encode`, by which pickles of protocol 2 store bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"an encoding {encoding!r}")
    return text.encode("latin1")


NUMPY: dict[tuple[str, str], Callable[..., Any] | str] = {
    ("core.multiarray", "_reconstruct"): _empty_array,
    ("core.multiarray", "scalar"): _scalar,
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): _dtype,
}
