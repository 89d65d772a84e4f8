"""`.spz` files, Niantic's compressed splats: about a tenth of a `.ply`.

A gzip stream of a 16-byte header and one block per attribute for all points (github.com/nianticlabs/spz):

    uint32 "NGSP", uint32 version, uint32 points, uint8 harmonics degree, uint8 fractional bits, uint8 flags, uint8 0
    positions   3 x int24    fixed point with `fractional bits` bits after the point
    opacities   uint8        0..255 for 0..1
    colors     3 x uint8    (f_dc·0.15 + 0.5)·255, where rgb = 0.5 + SH_C0·f_dc
    scales      3 x uint8    (log scale + 10)·16
    rotations   version 2: 3 x uint8, (x,y,z + 1)·127.5 with w >= 0
                version 3: uint32 with the largest component's index (x,y,z,w) in the upper 2 bits, then the other
                three in 10 bits each, sign and 9 bits of |q|·sqrt(2); the largest is positive
    harmonics   uint8, 3 for each coefficient above degree 0

Axes are x right, y up, z back: z1g's y-up world. `write` uses version 3.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.names import counted
from z1g.gaussians.channels import join, split
from z1g.gaussians.ply import MAX_POINTS, SH_C0

HEADER = struct.Struct("<4sIIBBBB")
MAGIC = b"NGSP"
VERSION = 3
FRACTIONAL_BITS = 16
"""Positions are exact to 2**-17 and may be up to 128 units from the origin."""
COLOR_SCALE = 0.15
FIRST_BYTES = 2**16
"""Packed bytes that surely contain the header."""
HARMONICS = {0: 0, 1: 3, 2: 8, 3: 15}
"""Coefficients above degree 0, by degree."""
ROTATION_BYTES = {1: 3, 2: 3, 3: 4}
QUATERNION_BITS = 511
GZIP = 16 + zlib.MAX_WBITS

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]


def write(path: Path, gaussians: Tensor) -> None:
    """Write activated Gaussians [N,14] of the y-up world. Raises UserError if a position is out of range."""
    parts = {name: part.double().numpy() for name, part in split(gaussians, dim=1).items()}
    fixed = np.round(parts["position"] * 2**FRACTIONAL_BITS)
    if np.abs(fixed).max() >= 2**23:
        raise UserError(f".spz stores positions up to {2 ** (23 - FRACTIONAL_BITS)} units")
    blocks = [
        HEADER.pack(MAGIC, VERSION, len(gaussians), 0, FRACTIONAL_BITS, 0, 0),
        fixed.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes(),
        _byte(parts["opacity"] * 255).tobytes(),
        _byte(((parts["rgb"] - 0.5) / SH_C0 * COLOR_SCALE + 0.5) * 255).tobytes(),
        _byte((np.log(np.maximum(parts["scale"], 1e-10)) + 10) * 16).tobytes(),
        _smallest_three(parts["rotation"]).tobytes(),
    ]
    pack = zlib.compressobj(level=9, wbits=GZIP)
    path.write_bytes(pack.compress(b"".join(blocks)) + pack.flush())


def read(path: Path) -> Tensor:
    """Activated Gaussians [N,14], float32, y-up world, of versions 2 and 3. Harmonics above degree 0 are ignored.

    Raises UserError if the file is not an .spz, of another version, truncated or otherwise damaged, or has an invalid
    header.
    """
    return read_harmonics(path)[0]


def read_harmonics(path: Path) -> tuple[Tensor, Tensor | None]:
    """Like `read`, and the harmonics above degree 0: [N,K,3] in the y-up world, None if there are none."""
    unpack = zlib.decompressobj(GZIP)
    try:
        with path.open("rb") as stream:
            head = unpack.decompress(stream.read(FIRST_BYTES), HEADER.size)
        version, count, bits, size = _checked(path, head)
        with path.open("rb") as stream:
            # Deflate adds less than a thousandth to what it cannot pack.
            packed = stream.read(FIRST_BYTES + size + size // 1000)
        unpack = zlib.decompressobj(GZIP)
        unpack.decompress(packed, HEADER.size)
        # Unpacks no more than the size that follows from the header, whatever the stream contains.
        body = unpack.decompress(unpack.unconsumed_tail, size + 1)
    except zlib.error as error:
        raise UserError(f"{path} is not a valid .spz: {error}") from error
    # At its end, the stream is compared with its checksum.
    if len(body) < size or (len(body) == size and not unpack.eof):
        raise UserError(f"{path} is truncated: {len(body)} of {size} bytes for {counted(count, 'Gaussian')}")
    if len(body) > size:
        raise UserError(f"{path} is damaged: it has more bytes than those of {counted(count, 'Gaussian')}")
    blocks, start = [], 0
    k = (size // count - 16 - ROTATION_BYTES[version]) // 3 if count else 0
    for width in (9, 1, 3, 3, ROTATION_BYTES[version], 3 * k):
        blocks.append(np.frombuffer(body, np.uint8, count * width, start).reshape(count, width))
        start += count * width
    position, opacity, color, scale, rotation, bands = blocks
    wide = np.zeros((count, 3, 4), np.uint8)
    wide[..., 1:] = position.reshape(count, 3, 3)  # shifted up by a byte to extend the sign
    parts = {
        "position": (wide.view("<i4")[..., 0] >> 8) / 2.0**bits,
        "opacity": opacity / 255.0,
        "scale": np.exp(scale / 16.0 - 10),
        "rotation": _from_smallest_three(rotation) if version == 3 else _from_xyz(rotation),
        "rgb": 0.5 + SH_C0 * (color / 255.0 - 0.5) / COLOR_SCALE,
    }
    gaussians = join({name: torch.from_numpy(part) for name, part in parts.items()}, dim=1).float()
    # Of each coefficient red, green and blue; 128 is zero.
    harmonics = torch.from_numpy((bands.astype(np.float32) - 128) / 128).unflatten(1, (-1, 3)) if k else None
    return gaussians, harmonics


def _checked(path: Path, head: bytes) -> tuple[int, int, int, int]:
    """Version, number of points, fractional bits and bytes after the header."""
    if len(head) < HEADER.size or head[:4] != MAGIC:
        raise UserError(f"{path} is not an .spz file: it does not begin with {MAGIC.decode()}")
    _, version, count, degree, bits, _, _ = HEADER.unpack(head)
    if version not in (2, 3):
        raise UserError(f"{path} is .spz version {version}; versions 2 and 3 are supported")
    if count > MAX_POINTS or degree not in HARMONICS or bits > 23:
        raise UserError(f"{path} is damaged: {count} points of degree {degree} with {bits} fractional bits")
    return version, count, bits, count * (16 + ROTATION_BYTES[version] + 3 * HARMONICS[degree])


def _byte(values: Floats) -> Bytes:
    clipped: Bytes = np.clip(np.round(values), 0, 255).astype(np.uint8)
    return clipped


def _smallest_three(rotation: Floats) -> NDArray[np.uint32]:
    """Quaternions [N,4], w first, as packed integers [N]."""
    q = np.roll(rotation / np.linalg.norm(rotation, axis=1, keepdims=True), -1, axis=1)  # w last
    largest = np.abs(q).argmax(axis=1)
    rows = np.arange(len(q))
    q = q * np.where(q[rows, largest] < 0, -1.0, 1.0)[:, None]
    packed = largest.astype(np.uint32)
    for component in range(4):
        value = q[:, component]
        size = np.round(np.abs(value) * np.sqrt(2) * QUATERNION_BITS).astype(np.uint32)
        size = np.minimum(size, QUATERNION_BITS)
        extended = (packed << np.uint32(10)) | (np.uint32(512) * (value < 0)).astype(np.uint32) | size
        packed = np.where(component == largest, packed, extended).astype(np.uint32)
    little_endian: NDArray[np.uint32] = packed.astype("<u4")
    return little_endian


def _from_smallest_three(packed: Bytes) -> Floats:
    """Inverse of `_smallest_three`: bytes [N,4] to quaternions [N,4], w first."""
    word = np.ascontiguousarray(packed).view("<u4")[:, 0].copy()
    largest = (word >> 30).astype(int)
    q = np.zeros((len(word), 4))
    for component in reversed(range(4)):
        value = (word & QUATERNION_BITS) / QUATERNION_BITS / np.sqrt(2) * np.where(word & 512, -1.0, 1.0)
        stored = component != largest
        q[stored, component] = value[stored]
        word = np.where(stored, word >> 10, word)
    rows = np.arange(len(word))
    q[rows, largest] = np.sqrt(np.maximum(0, 1 - (q**2).sum(axis=1)))
    return np.roll(q, 1, axis=1)


def _from_xyz(packed: Bytes) -> Floats:
    """Version 2: x, y, z as bytes [N,3] to quaternions [N,4], w first."""
    xyz = packed / 127.5 - 1
    w = np.sqrt(np.maximum(0, 1 - (xyz**2).sum(axis=1, keepdims=True)))
    return np.concatenate([w, xyz], axis=1)
