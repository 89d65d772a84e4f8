"""PNG files: whether one is damaged, and those of shards, decoded three and encoded ten times as fast as by Pillow.

Decoding dominates the time to read a sample, encoding the time to write one that is rasterized.
"""

import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBBBBB")
LENGTH = struct.Struct(">I")
RGBA_8_BIT = (8, 6, 0, 0, 0)
"""Depth, color type, compression, filter method and interlacing (PNG specification, section 11.2.1)."""
LARGEST_SIDE = 1 << 14
DAMAGED: Any = isal_zlib.error


LEVEL = 2
"""Of isal's 0 to 3; higher ones take twice the time and save nothing on filtered rows."""
UP = 2


def require_checksums(source: Path | IO[bytes]) -> None:
    """Raise an error of Pillow if an image is a PNG with a chunk that is not as it was written.

    Pillow itself decodes damaged rows as far as it can and leaves out the rest. Other formats have no checksums.
    """
    with Image.open(source) as image:
        if image.format == "PNG":
            image.verify()


def encode_rgba(image: NDArray[np.uint8]) -> bytes:
    """PNG file of an image [H,W,4], about a fifth larger than Pillow's. Every row has the filter "up"."""
    height, width, _ = image.shape
    rows = image.reshape(height, 4 * width)
    filtered = np.empty((height, 1 + 4 * width), np.uint8)
    filtered[:, 0] = UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = HEADER.pack(width, height, *RGBA_8_BIT)
    chunks = (b"IHDR", header), (b"IDAT", isal_zlib.compress(filtered.tobytes(), LEVEL)), (b"IEND", b"")
    return SIGNATURE + b"".join(
        LENGTH.pack(len(content)) + kind + content + LENGTH.pack(zlib.crc32(kind + content)) for kind, content in chunks
    )


def decode_rgba(content: bytes, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8] | None:
    """Straight RGBA [H,W,4] of a plain 8-bit PNG; None for other formats and damaged files, which are left to Pillow.

    into: contiguous [H,W,4] that is filled and returned if the image has this size.
    """
    if content[:8] != SIGNATURE or content[12:16] != b"IHDR" or len(content) < 33:
        return None
    width, height, *kind = HEADER.unpack_from(content, 16)
    if tuple(kind) != RGBA_8_BIT or not 0 < width <= LARGEST_SIDE or not 0 < height <= LARGEST_SIDE:
        return None
    stream = _stream(content)
    if stream is None:
        return None
    size, inflate = height * (4 * width + 1), isal_zlib.decompressobj()
    try:
        raw = inflate.decompress(stream, size + 1)
    except DAMAGED:
        return None
    if len(raw) != size or not inflate.eof:
        return None
    if into is None or into.shape != (height, width, 4):
        into = np.empty((height, width, 4), np.uint8)
    from z1g.data.png_filters import unfilter  # numba, which takes longer to import than an image to encode

    valid = unfilter(np.frombuffer(raw, np.uint8).reshape(height, -1), into.reshape(height, -1))
    return into if valid else None


def _stream(content: bytes) -> bytes | None:
    """The compressed rows, or None if the file ends before its last chunk."""
    parts: list[bytes] = []
    offset = len(SIGNATURE)
    while offset + 12 <= len(content):
        (length,) = LENGTH.unpack_from(content, offset)
        kind = content[offset + 4 : offset + 8]
        if kind == b"IEND":
            return b"".join(parts)
        if kind == b"IDAT":
            parts.append(content[offset + 8 : offset + 8 + length])
        offset += 12 + length
    return None
