"""Reading binary mesh files with checked bounds."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.raster.scene import MeshError


class Cursor:
    """A position in the content of a file. What lies beyond the end raises MeshError."""

    def __init__(self, content: bytes, at: int = 0) -> None:
        self._content, self._at = content, at

    def bytes(self, count: int) -> bytes:
        """The next `count` bytes."""
        begin = self._at
        if not 0 <= begin <= begin + count <= len(self._content):
            raise MeshError("the file is truncated, or its header is damaged")
        self._at = begin + count
        return self._content[begin : self._at]

    def values(self, layout: str) -> tuple[Any, ...]:
        """The next values, little-endian, in the notation of `struct`."""
        return struct.unpack(f"<{layout}", self.bytes(struct.calcsize(f"<{layout}")))

    def count(self) -> int:
        """The next unsigned 32-bit number."""
        (number,) = self.values("I")
        return int(number)

    def array(self, kind: str, rows: int, columns: int) -> NDArray[Any]:
        """The next [rows,columns] values of a NumPy type."""
        size = np.dtype(kind).itemsize * rows * columns
        return np.frombuffer(self.bytes(size), kind).reshape(rows, columns)

    def text(self, count: int) -> str:
        """The next `count` bytes as text that ends at the first zero."""
        return self.bytes(count).partition(b"\0")[0].decode("latin-1")


def checked(triangles: NDArray[Any], vertices: int) -> NDArray[np.int64]:
    """Triangles [T,3] as integers. Raises MeshError if one refers to a vertex that does not exist."""
    indices = triangles.astype(np.int64)
    if len(indices) and not 0 <= indices.min() <= indices.max() < vertices:
        raise MeshError("a face refers to a vertex that does not exist")
    return indices
