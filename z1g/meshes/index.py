"""Digests of mesh files, kept between runs: reading 100,000 files takes long, asking for their times does not."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from z1g.core.files import write_json


class Index:
    """Values by key, valid while none of the files they were made from has another size or time.

    The file lies in the user's cache folder; where it cannot be read or written, everything is made anew.
    """

    def __init__(self, subject: str) -> None:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = hashlib.sha256(subject.encode()).hexdigest()[:16]
        self.path = root / "z1g" / "contents" / f"{name}.json"
        self._old = _load(self.path)
        self._new: dict[str, Any] = {}

    def value(self, key: str, make: Callable[[], tuple[Any, Iterable[Path]]]) -> Any:
        """The JSON value of a key; `make` gives it together with the files it depends on. Raises what `make` does."""
        known = self._old.get(key)
        if known is None or known["files"] != _stamp(Path(path) for path, _, _ in known["files"]):
            value, files = make()
            known = {"value": value, "files": _stamp(files)}
        self._new[key] = known
        return known["value"]

    def save(self) -> None:
        """Keep the values that were asked for since the index was opened."""
        if self._new == self._old:
            return
        try:
            write_json(self.path, self._new)
        except OSError:
            return  # a read-only home costs time, nothing else


def _stamp(files: Iterable[Path]) -> list[list[Any]]:
    """Path, size and modification time (ns) of every file."""
    return [[str(path), *_size_and_time(path)] for path in files]


def _size_and_time(path: Path) -> tuple[int, int]:
    """A file that is missing counts too: it may be there the next time."""
    try:
        status = path.stat()
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(content, dict) and all(
        isinstance(entry, dict) and entry.keys() == {"value", "files"} and isinstance(entry["files"], list)
        for entry in content.values()
    )
    return content if whole else {}
