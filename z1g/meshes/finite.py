"""Detecting NaN and infinity in mesh files.

Blender's importers silently move such a vertex to the origin, which results in a spike instead of an error. STL is not
checked here: its importer has an option to keep the values, so the render script checks them.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.store import MARK, whole_lines

_OBJ_VERTEX = re.compile(
    rb"^" + MARK + rb"v[^\S\n].*(\b(nan|inf)|e\+?(39|[4-9]\d|\d{3,})\b)", re.IGNORECASE | re.MULTILINE
)
"""Numbers above 3.4e38 also match: they are infinite in Blender's single precision."""
_SUSPECT = re.compile(rb"e\+?(39|[4-9]\d|\d{3,})|nan|inf")
_PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
_GLTF_FLOAT = 5126


def all_finite(path: Path) -> bool:
    """Whether all vertices of a mesh file are finite; also True if the file cannot be parsed.

    Raises OSError if it cannot be read.
    """
    check = _CHECKS.get(path.suffix.lower())
    try:
        return check is None or check(path)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError, MemoryError):
        # Blender reports the error of a damaged file.
        return True


def _obj(path: Path) -> bool:
    with path.open("rb") as stream:
        # Few files have suspects; this search in lower case takes a tenth of the time.
        suspects = (lines for lines in whole_lines(stream) if _SUSPECT.search(lines.lower()))
        return not any(_OBJ_VERTEX.search(lines) for lines in suspects)


def _ply(path: Path) -> bool:
    with path.open("rb") as stream:
        kind, count, columns = _ply_header(stream)
        if kind == "ascii":
            rows = np.loadtxt(stream, max_rows=count, usecols=[list(columns).index(axis) for axis in "xyz"], ndmin=2)
            return bool(np.isfinite(rows).all())
        order = "<" if kind == "binary_little_endian" else ">"
        vertices = np.fromfile(stream, [(name, order + code) for name, code in columns.items()], count)
        return all(bool(np.isfinite(vertices[axis]).all()) for axis in "xyz")


def _ply_header(stream: BinaryIO) -> tuple[str, int, dict[str, str]]:
    """Encoding, number of vertices and their columns (name to NumPy type). Raises ValueError for other layouts."""
    kind, elements, columns = "", [], dict[str, str]()
    count = 0
    for line in stream:
        words = line.decode("ascii").split()
        if words[0] == "format":
            kind = words[1]
        elif words[0] == "element":
            elements.append(words[1])
            count = int(words[2]) if words[1] == "vertex" else count
        elif words[0] == "property" and elements == ["vertex"]:
            columns[words[2]] = _PLY_TYPES[words[1]]
        elif words[0] == "end_header":
            break
    if elements[:1] != ["vertex"]:
        raise ValueError("vertices do not come first")
    return kind, count, columns


def _glb(path: Path) -> bool:
    return all(bool(np.isfinite(points).all()) for points in _glb_positions(path))


def _glb_positions(path: Path) -> Iterator[NDArray[np.float32]]:
    """Positions [N,3] of every primitive that stores them as floats in the file's binary chunk."""
    content = np.memmap(path, np.uint8, "r")
    size = int(content[12:16].view("<u4")[0])
    document, binary = json.loads(content[20 : 20 + size].tobytes()), content[28 + size :]
    primitives = [primitive for mesh in document["meshes"] for primitive in mesh["primitives"]]
    for index in sorted({primitive["attributes"]["POSITION"] for primitive in primitives}):
        accessor = document["accessors"][index]
        if accessor["componentType"] == _GLTF_FLOAT and "bufferView" in accessor:
            view = document["bufferViews"][accessor["bufferView"]]
            start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
            strides = (view.get("byteStride", 12), 4)
            yield np.ndarray((accessor["count"], 3), "<f4", binary, start, strides)


_CHECKS: dict[str, Callable[[Path], bool]] = {".obj": _obj, ".ply": _ply, ".glb": _glb}
