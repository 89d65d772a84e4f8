"""Depth maps, compressed without loss: most pixels are empty, and neighbors have the same exponent."""

import json
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

DAMAGED: Any = isal_zlib.error
LEVEL = 2
"""Of isal's 0 to 3."""
LARGEST = 1 << 30
"""Bytes of the largest depth that is read."""


def encode_depth(depth: NDArray[np.float32]) -> bytes:
    """Bytes of an array: a line with its shape, then, by deflate, the first bytes of all values, the second ones, …"""
    planes = np.ascontiguousarray(depth.astype("<f4")).view(np.uint8).reshape(-1, 4).T
    return json.dumps(depth.shape).encode() + b"\n" + isal_zlib.compress(planes.tobytes(), LEVEL)


def decode_depth(content: bytes) -> NDArray[np.float32]:
    """Inverse of `encode_depth`. Raises ValueError for other bytes."""
    head, _, body = content.partition(b"\n")
    shape = tuple(map(int, json.loads(head)))
    size = 4 * int(np.prod(shape, dtype=object))
    if not 0 < size <= LARGEST:
        raise ValueError(f"depth of shape {list(shape)} is not read")
    try:
        planes = isal_zlib.decompressobj().decompress(body, size + 1)
    except DAMAGED as error:
        raise ValueError(f"its depth cannot be decompressed: {error}") from error
    if len(planes) != size:
        raise ValueError(f"its depth has {len(planes)} bytes instead of {size}")
    values = np.frombuffer(planes, np.uint8).reshape(4, -1).T
    return np.ascontiguousarray(values).view("<f4").reshape(shape)
