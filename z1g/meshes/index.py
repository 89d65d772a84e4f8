"""A cache of mesh file digests between runs: reading 100,000 files is slow, checking their times is fast."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from z1g.core.files import write_json


def cache_folder() -> Path:
    """The user's cache folder of z1g."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "z1g"


class Index:
    """Values by key, valid while the files they depend on keep their sizes and modification times.

    They are stored in the user's cache folder; if it cannot be read or written, every value is computed again.
    """

    def __init__(self, subject: str) -> None:
        name = hashlib.sha256(subject.encode(errors="surrogatepass")).hexdigest()[:16]
        self.path = cache_folder() / "contents" / f"{name}.json"
        self._old = _load(self.path)
        self._new: dict[str, Any] = {}

    def value(self, key: str, make: Callable[[], tuple[Any, Iterable[Path]]]) -> Any:
        """The JSON value of a key; `make` returns it with the files it depends on. Raises the errors of `make`."""
        entry = self._old.get(key)
        if entry is None or entry["files"] != _stamp(Path(path) for path, _, _ in entry["files"]):
            value, files = make()
            entry = {"value": value, "files": _stamp(files)}
        self._new[key] = entry
        return entry["value"]

    def save(self) -> None:
        """Write the values that were requested since the index was opened."""
        if self._new == self._old:
            return
        try:
            write_json(self.path, self._new)
        except OSError:
            return  # with a read-only home, only the cache is lost


def _stamp(files: Iterable[Path]) -> list[list[Any]]:
    """Path, size and modification time (ns) of every file."""
    return [[str(path), *_size_and_time(path)] for path in files]


def _size_and_time(path: Path) -> tuple[int, int]:
    """Missing files have a stamp too, because they may exist at the next run."""
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
    valid = isinstance(content, dict) and all(
        isinstance(entry, dict) and entry.keys() == {"value", "files"} and isinstance(entry["files"], list)
        for entry in content.values()
    )
    return content if valid else {}
