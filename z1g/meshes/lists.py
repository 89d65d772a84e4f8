"""Lists of objects, written by hand or by `z1g list`: CSV or JSON Lines, one object per row."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.files import lines_of
from z1g.core.names import did_you_mean
from z1g.data.manifest import HELD_OUT

COLUMNS = (
    "path", "name", "category", "creator", "license", "source", "group", "held_out",
    "content", "mesh", "textures", "root",
)  # fmt: skip
ENDINGS = (".csv", ".jsonl")
DIGESTS = ("content", "mesh", "textures")
"""Columns that `z1g list` writes."""
DIGEST = re.compile("[0-9a-f]{64}")


def read_list(path: Path) -> Iterator[dict[str, str]]:
    """Yield rows with `path`, relative to the list's folder, and optionally the other COLUMNS.

    Raises UserError with file and line for invalid rows.
    """
    read = _csv if path.suffix.lower() == ".csv" else _jsonl
    try:
        for number, row in read(path):
            yield _checked(row, f"{path}, line {number}")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read as a list of objects: {error}; save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a list of objects: {error}") from error


def _csv(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(lines_of(file, path))
        _check_header(reader.fieldnames or (), path)
        for row in reader:
            if None in row or None in row.values():
                raise UserError(
                    f"{path}, line {reader.line_num}: its number of fields is not that of the columns in the first "
                    'line; put a text that has a comma in "double quotes"'
                )
            yield reader.line_num, {key: value for key, value in row.items() if value != ""}


def _check_header(names: Sequence[str], path: Path) -> None:
    """Raise UserError unless names of columns, which other separators join to one, have `path` and are different."""
    if names and "path" not in names:
        raise UserError(
            f"{path}: its first line names no column `path`, but {', '.join(names)[:80]!r}; columns are "
            f"{', '.join(COLUMNS)}, with commas between them"
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path}: its first line names the column {twice[0]} twice; remove one of them")


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(lines_of(file, path), 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise UserError(f"{path}, line {number}: not JSON: {error}") from error


def _checked(row: Any, where: str) -> dict[str, str]:
    if not isinstance(row, dict) or not row.get("path"):
        raise UserError(f"{where}: every object needs a `path`; columns are {', '.join(COLUMNS)}")
    for key, value in row.items():
        if key not in COLUMNS:
            raise UserError(f"{where}: unknown column {key}{did_you_mean(str(key), COLUMNS)}")
        if not isinstance(value, str):
            raise UserError(f"{where}: {key} is {value!r}, which is not a string")
        if key in DIGESTS and value and not DIGEST.fullmatch(value):
            raise UserError(
                f"{where}: {key} is {value[:80]!r}, which is no SHA-256 digest; leave it out, or let `z1g list` write "
                "it"
            )
    # Spaces, which nobody sees, would make another group.
    row |= {key: row[key].strip() for key in ("group", "held_out") if key in row}
    if row.get("held_out") and row["held_out"] not in HELD_OUT:
        raise UserError(f"{where}: held_out is {row['held_out']!r}; use {' or '.join(HELD_OUT)}, or leave it out")
    return row
