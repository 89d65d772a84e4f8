"""Splats of the objects of a chunk, as stage `fit` writes them, read and verified one object at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from z1g.core.files import read_jsonl
from z1g.core.recorded import checked, damaged
from z1g.core.unchecked import warn_unchecked
from z1g.data.checksums import OfState, checksum_of_tensor
from z1g.data.stored_splats import BadSplats, unpack

CHECKSUM = "checksum"
"""Column of a fit's table with the checksum of the object's splats."""


class SplatFile:
    """The file `chunk-NNNNN.safetensors` of a fit, and the table `chunk-NNNNN.jsonl` next to it.

    Raises UserError if the table is not as its job wrote it, or if the file cannot be read or lacks objects. Of a file
    without a table, or with a table of an earlier version, only what the format itself reveals is noticed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._verified: OfState[set[str]] = OfState(set)
        self._checksums = {name: row[CHECKSUM] for name, row in self.rows().items() if CHECKSUM in row}
        if not path.is_file():
            raise damaged(path, "it does not exist")
        try:
            with safe_open(path, framework="pt") as file:
                self.ids: list[str] = list(file.keys())
        except SafetensorError as error:
            raise damaged(path, f"it cannot be read as safetensors: {error}") from error
        if not self._checksums and self.ids:
            warn_unchecked(path, "their table has no checksums; `z1g verify` checks whole files")
        elif set(self.ids) != self._checksums.keys():
            raise damaged(path, "it does not have the objects of its table")

    def rows(self) -> dict[str, dict[str, Any]]:
        """Rows of the table by object id; none if there is no table."""
        table = checked(self.path.with_suffix(".jsonl"))
        if not table.is_file():
            return {}
        try:
            return {row["id"]: row for row in read_jsonl(table)}
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(table, f"it cannot be read as a table: {error}") from error

    def read(self, name: str) -> Tensor:
        """The splatter images [6,14,S,S] of an object, float32, whatever the form in which they are stored.

        They are verified as `z1g.data.checksums` says. Raises UserError if they are not as they were written.
        """
        try:
            verified = self._verified(self.path.stat())
            with safe_open(self.path, framework="pt") as file:
                splats: Tensor = file.get_tensor(name)
        except SafetensorError as error:
            raise damaged(self.path, f"{name} cannot be read: {error}") from error
        if self._checksums and name not in verified:
            if checksum_of_tensor(splats) != self._checksums[name]:
                raise damaged(self.path, f"the splats of {name} do not have the checksum in its table")
            verified.add(name)
        try:
            return unpack(splats) if splats.ndim == 1 else splats.float()
        except BadSplats as error:
            raise damaged(self.path, f"the splats of {name} cannot be unpacked: {error}") from error


def with_checksums(rows: Sequence[Mapping[str, Any]], splats: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Rows of a fit's table with the checksums of the splats on the CPU, by object id."""
    return [
        {**row, **({CHECKSUM: checksum_of_tensor(splats[row["id"]])} if row["id"] in splats else {})} for row in rows
    ]
