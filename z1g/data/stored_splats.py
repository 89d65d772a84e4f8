"""Forms in which fits are stored: as they are, in half precision, or in half precision without invisible Gaussians."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from isal import isal_zlib

from z1g.gaussians.channels import CHANNELS, MIN_ALPHA, N_CHANNELS

if TYPE_CHECKING:
    import torch
else:
    from z1g.core.lazy import torch

Stored = Literal["float32", "float16", "visible"]
N_VIEWS = 6
LARGEST_SIDE = 4096
DAMAGED: Any = isal_zlib.error
LEVEL = 2
"""Of isal's 0 to 3."""
INVISIBLE = (0.0, 0.0, 0.0, 1e-3, 0.01, 0.01, 0.01, 1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5)
"""What a Gaussian that was left out is when it is read: valid, and below the opacity that rasterizers draw."""


class BadSplats(ValueError):
    """Bytes that are no packed splats."""


def stored(splats: torch.Tensor, form: Stored) -> torch.Tensor:
    """Splatter images [6,14,S,S] as they are written: float32, float16, or bytes [N] of `pack`."""
    if form == "visible":
        return pack(splats)
    return splats.to(torch.float16 if form == "float16" else torch.float32)


def pack(splats: torch.Tensor) -> torch.Tensor:
    """Bytes [N], uint8, of splatter images [6,14,S,S]: which Gaussians are visible, and these in half precision.

    The first four bytes are S, little-endian. What follows is compressed by deflate: a bit a Gaussian, then the low
    bytes of all values, channel by channel, then the high ones, which compress better apart.
    """
    size = splats.shape[-1]
    values = splats.detach().cpu().numpy()
    seen = values[:, CHANNELS["opacity"].start] >= MIN_ALPHA
    half = values.transpose(1, 0, 2, 3)[:, seen].astype("<f2")
    planes = np.ascontiguousarray(half).view(np.uint8).reshape(-1, 2)
    body = np.packbits(seen.reshape(-1)).tobytes() + planes[:, 0].tobytes() + planes[:, 1].tobytes()
    content = size.to_bytes(4, "little") + isal_zlib.compress(body, LEVEL)
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())


def unpack(content: torch.Tensor) -> torch.Tensor:
    """Splatter images [6,14,S,S], float32, from the bytes of `pack`. Raises BadSplats."""
    raw = content.numpy().tobytes()
    size = int.from_bytes(raw[:4], "little")
    if not 0 < size <= LARGEST_SIDE:
        raise BadSplats(f"a side of {size} pixels is not read")
    n_all = N_VIEWS * size * size
    n_bits = -(-n_all // 8)
    most = n_bits + 2 * N_CHANNELS * n_all
    try:
        body = isal_zlib.decompressobj().decompress(raw[4:], most + 1)
    except DAMAGED as error:
        raise BadSplats(str(error)) from error
    bits, rest = np.frombuffer(body[:n_bits], np.uint8), np.frombuffer(body[n_bits:], np.uint8)
    if len(bits) != n_bits:
        raise BadSplats("the bytes end early")
    seen = np.unpackbits(bits, count=n_all).astype(bool).reshape(N_VIEWS, size, size)
    n_values = N_CHANNELS * int(seen.sum())
    if len(rest) != 2 * n_values:
        raise BadSplats(f"{len(rest)} bytes of values instead of {2 * n_values}")
    half = np.stack([rest[:n_values], rest[n_values:]], axis=1).reshape(-1).view("<f2").reshape(N_CHANNELS, -1)
    values = np.empty((N_CHANNELS, N_VIEWS, size, size), np.float32)
    values[:] = np.array(INVISIBLE, np.float32)[:, None, None, None]
    values[:, seen] = half
    return torch.from_numpy(values.transpose(1, 0, 2, 3).copy())
