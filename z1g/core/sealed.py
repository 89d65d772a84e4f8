"""JSON files with a checksum of their own content, for records that nothing else describes.

The checksum is that of the values, not of their spelling, and of the file's owner: a file that was exchanged with
another one is noticed too. Files without a checksum, written by earlier versions, are read with a warning.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from z1g.core.files import read_json, update_json, write_json
from z1g.core.unchecked import warn_unchecked

CHECKSUM = "checksum"
LENGTH = 32
"""Hexadecimal digits of a checksum, 128 bits."""


class Damaged(ValueError):
    """Content that does not have its checksum."""


def checksum(*values: Any) -> str:
    """Checksum of JSON values, independent of the order of keys."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:LENGTH]


def write_sealed(path: Path, value: dict[str, Any], owner: str) -> None:
    """Write a JSON object atomically, with a checksum. owner: what it belongs to, for example `fit/1a2b`."""
    write_json(path, {**value, CHECKSUM: checksum(owner, value)})


def update_sealed(path: Path, value: dict[str, Any], owner: str) -> None:
    """Like `write_sealed`, unless the file has exactly this content; see `z1g.core.files.update_json`."""
    update_json(path, {**value, CHECKSUM: checksum(owner, value)})


def read_sealed(path: Path, owner: str) -> dict[str, Any]:
    """Inverse of `write_sealed`. Raises OSError, or ValueError if the file is no JSON object or damaged."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise Damaged("it is not a JSON object")
    recorded = value.pop(CHECKSUM, None)
    if recorded is None and any(_is_seal(key, value, owner) for key in value):
        raise Damaged(f'the key "{CHECKSUM}" has another name: it is damaged')
    if recorded is None:
        warn_unchecked(path, "records of an earlier version have no checksum")
    elif recorded != checksum(owner, value):
        raise Damaged("its content does not have its checksum: it is damaged, or belongs elsewhere")
    return value


def _is_seal(key: str, value: dict[str, Any], owner: str) -> bool:
    """Whether a key has the checksum of all others, as after damage to the name of the checksum itself."""
    seal = value[key]
    if not (isinstance(seal, str) and len(seal) == LENGTH):
        return False
    return seal == checksum(owner, {other: value[other] for other in value if other != key})


def rows_checksum(rows: Iterable[dict[str, Any]]) -> str:
    """Checksum of the rows of a table, in their order."""
    return checksum(*rows)
