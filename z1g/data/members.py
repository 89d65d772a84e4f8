"""Where the files of objects are in a shard."""

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from z1g.core.files import read_jsonl
from z1g.core.recorded import checked, damaged

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
    """Members of all objects in a tar, or in a part of it.

    Raises tarfile.ReadError if there is no tar, or if it has two files of one name.
    """
    objects: dict[str, Members] = {}
    with path.open("rb") as stream:
        stream.seek(begin)
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (end is None or tar.offset < end) and (member := tar.next()) is not None:
                key, _, ending = member.name.partition(".")
                members = objects.setdefault(key, {})
                if ending in members:
                    raise tarfile.ReadError(f"it has {member.name} twice")
                members[ending] = (member.offset_data, member.size, VERIFIED)
    return objects


def stored_in_table(path: Path) -> dict[str, Stored] | None:
    """Places of a shard's objects, or None if there is no valid table.

    Raises UserError if the table has places that are none, or an object twice.
    """
    table = checked(path.with_suffix(".jsonl"))
    try:
        rows = [row for row in read_jsonl(table) if row["status"] == "ok"]
        places = [(row["id"], *row["span"], row.get("checksums", "")) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    stored: dict[str, Stored] = {}
    for row in places:
        if tuple(map(type, row)) != (str, int, int, str) or not 0 <= row[1] <= row[2] or row[0] in stored:
            raise damaged(table, f"its row {json.dumps(row)[:80]} is no place of an object, or one of an earlier row")
        stored[row[0]] = Stored(*row[1:])
    return stored
