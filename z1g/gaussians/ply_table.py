"""Tables of numbers in `.ply` files (Turk 1994): ascii or binary, of either byte order, with any elements.

Files may come from anywhere: sizes are compared with the file before memory is allocated, and nothing is executed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from z1g.core.errors import UserError
from z1g.core.names import counted

TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
"""numpy's names of the types, by both of their spellings."""
ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
LARGEST_HEADER = 65_536
"""Size limit of a header, bytes."""
MAX_PROPERTIES = 256
LONGEST_LINE = 65_536
"""Size limit of a line of an ascii file, bytes."""


@dataclass(frozen=True)
class Property:
    """A number, or a list of numbers whose length has type `count`."""

    name: str
    kind: str
    count: str | None = None


@dataclass(frozen=True)
class Element:
    """A table in the file: `count` rows of properties."""

    name: str
    count: int
    properties: list[Property]

    @property
    def has_lists(self) -> bool:
        """Whether rows have different lengths."""
        return any(item.count is not None for item in self.properties)

    def row(self, order: str) -> np.dtype:
        """Type of a binary row of numbers."""
        return np.dtype([(str(i), order + item.kind) for i, item in enumerate(self.properties)])


def read_element(path: Path, name: str, most: int) -> dict[str, NDArray]:
    """Columns, each [N], of the element `name` of a file by property.

    Raises UserError if the file is not a `.ply` with up to `most` such rows, all of numbers, or if it is truncated or
    has more content than its header says.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        try:
            order, elements = _header(stream)
            element = next((item for item in elements if item.name == name), None)
            if element is None:
                raise ValueError(f"it has no element {name}")
            if element.has_lists:
                raise ValueError(f"its element {name} has lists")
            if element.count > most:
                raise ValueError(f"it has {counted(element.count, 'row')} of {name}, more than {most}")
            before, last = elements[: elements.index(element)], element is elements[-1]
            return (_ascii if order == "=" else _binary)(stream, order, before, element, last, size)
        except (ValueError, OverflowError, MemoryError) as error:
            raise UserError(f"{path}: not a usable .ply: {error}") from error


def contents(path: Path) -> dict[str, tuple[int, list[str]]]:
    """Number of rows and names of the properties of each element of a file. Raises UserError if it is no `.ply`."""
    with path.open("rb") as stream:
        try:
            _, elements = _header(stream)
        except (ValueError, OverflowError) as error:
            raise UserError(f"{path}: not a usable .ply: {error}") from error
    return {item.name: (item.count, [one.name for one in item.properties]) for item in elements}


def _header(stream: BinaryIO) -> tuple[str, list[Element]]:
    """Byte order and elements. Lines end with a line feed, or with a carriage return before it."""
    if stream.readline(8).rstrip(b"\r\n") != b"ply":
        raise ValueError("it does not begin with ply")
    order, elements = "", list[Element]()
    while stream.tell() < LARGEST_HEADER:
        line = stream.readline(LARGEST_HEADER)
        words = line.decode("ascii", "replace").split()
        if not line.endswith(b"\n"):
            break
        if words == ["end_header"]:
            if not order:
                raise ValueError("its header has no format")
            return order, elements
        if words[:1] == ["format"]:
            if len(words) != 3 or words[1] not in ORDERS or words[2] != "1.0":
                raise ValueError(f"its format is {' '.join(words[1:]) or 'missing'}")
            order = ORDERS[words[1]]
        elif words[:1] == ["element"]:
            if len(words) != 3 or not (words[2].isascii() and words[2].isdigit()):
                raise ValueError(f"'{' '.join(words)}' is not a name and a number of rows")
            elements.append(Element(words[1], int(words[2][:12]), []))
        elif words[:1] == ["property"]:
            _add(words, elements)
        elif words[:1] not in ([], ["comment"], ["obj_info"]):
            raise ValueError(f"its header has '{words[0][:40]}'")
    raise ValueError("its header does not end")


def _add(words: Sequence[str], elements: list[Element]) -> None:
    """Add a property to the last element."""
    is_list = words[1:2] == ["list"]
    kinds = words[2:4] if is_list else words[1:2]
    if not elements or len(words) != (5 if is_list else 3) or any(kind not in TYPES for kind in kinds):
        raise ValueError(f"'{' '.join(words)[:80]}' is not a property")
    types = [TYPES[kind] for kind in kinds]
    properties = elements[-1].properties
    if len(properties) == MAX_PROPERTIES or any(item.name == words[-1] for item in properties):
        raise ValueError(f"element {elements[-1].name} has a property twice, or more than {MAX_PROPERTIES}")
    properties.append(Property(words[-1], types[-1], types[0] if is_list else None))


def _binary(
    stream: BinaryIO, order: str, before: Sequence[Element], element: Element, last: bool, size: int
) -> dict[str, NDArray]:
    for other in before:
        _skip(stream, order, other, size)
    row, left = element.row(order), size - stream.tell()
    if left < row.itemsize * element.count:
        raise ValueError("it is truncated")
    if last and left > row.itemsize * element.count:
        raise ValueError(f"it has {counted(left - row.itemsize * element.count, 'byte')} more than its header says")
    table = np.frombuffer(stream.read(row.itemsize * element.count), row, element.count)
    return {item.name: table[str(i)] for i, item in enumerate(element.properties)}


def _skip(stream: BinaryIO, order: str, element: Element, size: int) -> None:
    """Move past the rows of a binary element."""
    if not element.has_lists:
        stream.seek(element.row(order).itemsize * element.count, 1)
        return
    for _ in range(element.count):
        for item in element.properties:
            width = np.dtype(item.kind).itemsize
            if item.count is not None:
                count = np.dtype(order + item.count)
                length = stream.read(count.itemsize)
                if len(length) < count.itemsize:
                    raise ValueError("it is truncated")
                width *= max(int(np.frombuffer(length, count)[0]), 0)
            stream.seek(width, 1)
        if stream.tell() > size:
            raise ValueError("it is truncated")


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines to the end of a file. Raises ValueError for one without an end, which may have lost digits."""
    while line := stream.readline(LONGEST_LINE):
        if not line.endswith(b"\n"):
            raise ValueError("it is truncated")
        yield line


def _ascii(
    stream: BinaryIO, _: str, before: Sequence[Element], element: Element, last: bool, size: int
) -> dict[str, NDArray]:
    rows = sum(other.count for other in before)
    # A row has at least one character and the end of its line.
    if 2 * (rows + element.count) > size + 1:
        raise ValueError("it is truncated")
    lines = _lines(stream)
    for _line in islice(lines, rows):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for an element without rows
        table = np.loadtxt(islice(lines, element.count), dtype=np.float64, comments=None, ndmin=2)
    table = table.reshape(-1, len(element.properties)) if table.size == 0 else table
    if table.shape != (element.count, len(element.properties)):
        raise ValueError(
            f"it has rows of {counted(table.shape[1], 'number')} instead of {len(element.properties)}, or too few"
        )
    if last and stream.read(1024).strip():
        raise ValueError("it has more rows than its header says")
    return {item.name: table[:, i] for i, item in enumerate(element.properties)}
