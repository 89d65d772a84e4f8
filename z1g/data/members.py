"""Where the files of objects are in a shard."""

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from z1g.core.files import read_jsonl
from z1g.core.recorded import checked

Members = dict[str, tuple[int, int, str]]
"""First byte, length and checksum of an object's files, by the part of their names after the id."""
VERIFIED = ""
"""Instead of the checksum of a file that was verified, or that has none."""


@dataclass(frozen=True)
class Stored:
    """Where an object is in a tar, and what its files are.

    begin, end: first byte of its members, and the byte after the last. checksums: those of its members in their order,
    joined; empty if the table has none.
    """

    begin: int
    end: int
    checksums: str = ""

    def row(self) -> dict[str, Any]:
        """Columns of the table."""
        return {"span": [self.begin, self.end], "checksums": self.checksums}


def members_of_tar(path: Path, begin: int = 0, end: int | None = None) -> dict[str, Members]:
    """Members of all objects in a tar, or in a part of it. Raises tarfile.ReadError if there is no tar."""
    objects: dict[str, Members] = {}
    with path.open("rb") as stream:
        stream.seek(begin)
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (end is None or tar.offset < end) and (member := tar.next()) is not None:
                key, _, ending = member.name.partition(".")
                objects.setdefault(key, {})[ending] = (member.offset_data, member.size, VERIFIED)
    return objects


def stored_in_table(path: Path) -> dict[str, Stored] | None:
    """Places of a shard's objects, or None if there is no valid table."""
    table = checked(path.with_suffix(".jsonl"))
    try:
        rows = [row for row in read_jsonl(table) if row["status"] == "ok"]
        return {row["id"]: Stored(row["span"][0], row["span"][1], row.get("checksums", "")) for row in rows}
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
