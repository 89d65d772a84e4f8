"""Lists of objects, written by hand or by `z1g list`: CSV or JSON Lines, one object per row."""

import csv
import json
from collections.abc import Iterator
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


def read_list(path: Path) -> Iterator[dict[str, str]]:
    """Yield rows with `path`, relative to the list's folder, and optionally the other COLUMNS.

    Raises UserError with file and line for invalid rows.
    """
    read = _csv if path.suffix.lower() == ".csv" else _jsonl
    try:
        for number, row in read(path):
            yield _checked(row, f"{path}, line {number}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a list of objects: {error}") from error


def _csv(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(lines_of(file, path))
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if value != ""}


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8") as file:
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
    if row.get("held_out") and row["held_out"] not in HELD_OUT:
        raise UserError(f"{where}: held_out is {row['held_out']!r}; use {' or '.join(HELD_OUT)}, or leave it out")
    return row
