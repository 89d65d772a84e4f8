"""Checksums of the parts of shards, which are verified whenever a part is read.

XXH3 (Yann Collet, xxhash.com) has 64 bits here and reads more than 10 GB/s, so that it costs next to nothing beside the
decoding of images. It notices damage; it does not resist forgery, for which job records have SHA-256 of whole files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from torch import Tensor

DIGITS = 16
"""Hexadecimal digits of a checksum."""


def checksum_of_bytes(content: bytes) -> str:
    """Checksum of a file's content."""
    return xxhash.xxh3_64_hexdigest(content)


def checksum_of_tensor(tensor: Tensor) -> str:
    """Checksum of the type, the shape and the values of a tensor on the CPU."""
    import torch

    digest = xxhash.xxh3_64(f"{tensor.dtype} {list(tensor.shape)}".encode())
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    digest.update(flat.numpy().data)
    return digest.hexdigest()


def split(checksums: str) -> list[str]:
    """The checksums that were joined to one text."""
    return [checksums[first : first + DIGITS] for first in range(0, len(checksums), DIGITS)]
