"""Atomic writing: a path holds either the old file or the complete new one."""

import errno
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL_DISK_BYTES = 65_536
"""A disk with fewer free bytes counts as full, because a failed write may have been partly written."""


@contextmanager
def atomic_file(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed to `path`, on error removed.

    durable: whether to wait until the disk has the file; not needed for what can be made again after a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with _disk_full_error(path):
            yield temporary
            if durable:
                _sync(temporary)
            os.replace(temporary, path)
            if durable:
                _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Like `atomic_file` for a folder; an older folder at `path` is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        with _disk_full_error(path):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _disk_full_error(path: Path) -> Iterator[None]:
    """Raise OSError (ENOSPC) with the path if the disk is full; some libraries only report that a write failed."""
    try:
        yield
    except Exception as error:
        other_cause = isinstance(error, OSError) and error.errno != errno.ENOSPC
        if other_cause or shutil.disk_usage(path.parent).free >= FULL_DISK_BYTES:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def require_regular(path: Path) -> None:
    """Raise OSError unless `path` is a regular file: reading a device, FIFO or socket may never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Write text atomically; `durable` as in `atomic_file`."""
    with atomic_file(path, durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document atomically, keys in the given order."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def update_json(path: Path, value: Any) -> None:
    """Write one JSON document atomically, unless the file has exactly this content.

    For thousands of files that can be made again: does not wait for the disk.
    """
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    try:
        known = path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        known = False
    if not known:
        write_text(path, text, durable=False)


def read_json(path: Path) -> Any:
    """Read one JSON document."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON Lines atomically."""
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read JSON Lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
