"""Checksums of the parts of shards, which are verified when a part is read.

A part is verified by the first read of it in a process, and again as soon as its file has another inode, size or time
of modification or status change, and at the latest after `AGAIN_S`. So no part is used that was never verified, and
what changes on the disk without a trace in the file system is not used for longer than that.

XXH3 (Yann Collet, xxhash.com) has 64 bits here and reads more than 10 GB/s, so that it costs next to nothing beside the
decoding of images. It notices damage; it does not resist forgery, for which job records have SHA-256 of whole files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

import xxhash

from z1g.core.recorded import RACY_S

if TYPE_CHECKING:
    from torch import Tensor

DIGITS = 16
"""Hexadecimal digits of a checksum."""
AGAIN_S = 24 * 3600
"""Seconds after which a part of a file that has not changed is verified again."""
T = TypeVar("T")


class OfState(Generic[T]):
    """What is known about a file in its present state; nothing is known when the state changes, and after `AGAIN_S`.

    Threads that read a file while it is replaced each get what belongs to their own state of it.
    """

    def __init__(self, nothing: Callable[[], T]) -> None:
        """nothing: what is known about a file at first, to which the reader adds."""
        self._nothing = nothing
        self._known: tuple[tuple[int, ...], T] | None = None

    def __call__(self, about: os.stat_result) -> T:
        """What is known about the file. Of one that changed within `RACY_S`, or in the future, always nothing."""
        if time.time() - max(about.st_mtime, about.st_ctime) < RACY_S:
            return self._nothing()
        period = int(time.monotonic() // AGAIN_S)
        state = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns, period)
        known = self._known
        if known is None or known[0] != state:
            known = self._known = (state, self._nothing())
        return known[1]


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
