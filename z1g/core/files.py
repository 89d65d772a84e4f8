"""Atomic writing: a path holds either the old file or the complete new one."""

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, AnyStr

LARGEST_DOCUMENT = 64 * 2**20
"""Size limit of a JSON document, bytes, far above those that z1g writes: what is larger is another file or damaged."""
LONGEST_LINE = 16 * 2**20
"""Length limit of a line of a table. The number of lines is not limited."""
OLD_S = 3600.0
"""Age of an unfinished small file whose writer must have ended, also by the clock of another machine."""
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk or a quota that is full."""
_FULL_IN_RUST = re.compile(rf"os error ({'|'.join(map(str, FULL))})\b")
"""What messages of safetensors end with, which does not write what finds no room, so that the disk is not full then."""
FULL_DISK_BYTES = 65_536
"""A disk with fewer free bytes counts as full, because a failed write may have been partly written."""


@contextmanager
def atomic_file(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed to `path`, on error removed.

    durable: whether to wait until the disk has the file; not needed for what can be made again after a power failure.
    Raises OSError if `path` is a device, FIFO or socket, which the new file would replace for everyone, or `.`.
    """
    _require_name(path)
    if path.exists() and not path.is_dir():
        require_regular(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with by_own_name(temporary, path), _disk_full_error(path):
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
    """Like `atomic_file` for a folder; an older folder at `path` is replaced, or a link to one, which keeps its own.

    Raises OSError if a file is at `path`.
    """
    _require_name(path)
    if path.exists() and not path.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, older = (path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp") for _ in range(2))
    with by_own_name(temporary, path):
        temporary.mkdir()
    try:
        with by_own_name(temporary, path), _disk_full_error(path):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            # Killed while it is removed, an older folder must not look complete.
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, older)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        # What is raised is why the folder could not be written.
        for unfinished in (temporary, older):
            with contextlib.suppress(OSError):
                _remove(unfinished)


def _remove(path: Path) -> None:
    """Remove a folder as far as that is possible, a file or a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def require_place(path: Path) -> None:
    """Raise OSError if `atomic_file` could not write `path`: before work that takes long. Nothing is made."""
    _require_name(path)
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists():
        require_regular(path)
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _require_name(path: Path) -> None:
    if not path.name:
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def remove_unfinished(folder: Path, prefix: str = "", but: Sequence[str] = ()) -> None:
    """Remove what killed processes were writing to paths in `folder`, at any depth.

    Only to those whose name begins with `prefix`, for which the caller holds a lock with which no other process writes
    to them. To those named in `but`, small files that others may be writing, only what is an hour old.
    """
    for path in list(folder.rglob("*.tmp")):
        name = _TEMPORARY.fullmatch(path.name)
        dead = name and (_is_old(path) if name[1] in but else f"{name[1]}.".startswith(prefix))
        if dead:
            _remove(path)


def _is_old(path: Path) -> bool:
    """Whether nobody can be writing a small file any more; False if it has gone."""
    try:
        return time.time() - path.stat().st_mtime > OLD_S
    except FileNotFoundError:
        return False


@contextmanager
def _disk_full_error(path: Path) -> Iterator[None]:
    """Raise OSError with the path if the disk or the quota is full.

    Some libraries only report that a write failed, and a write to an open file does not know the file's name.
    """
    try:
        yield
    except Exception as error:
        cause = error.errno if isinstance(error, OSError) else None
        if cause in FULL and isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
            raise
        other_cause = isinstance(error, OSError) and cause != errno.ENOSPC
        if (found := _FULL_IN_RUST.search(str(error))) and not other_cause:
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
        if other_cause or shutil.disk_usage(path.parent).free >= FULL_DISK_BYTES:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


@contextmanager
def by_own_name(temporary: Path, path: Path) -> Iterator[None]:
    """Let errors of the operating system name a file as its user knows it."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str | os.PathLike):
            name, before = os.fspath(error.filename), str(temporary)
            if name == before or name.startswith(before + os.sep):
                error.filename = str(path) + name[len(before) :]
        raise


def require_regular(path: Path, largest: int | None = None) -> None:
    """Raise OSError unless `path` is a regular file of up to `largest` bytes.

    Reading a device, FIFO or socket may never end, and a sparse file of terabytes takes no disk.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if largest is not None and status.st_size > largest:
        raise OSError(errno.EFBIG, f"its {status.st_size} bytes are above the limit of {largest}", str(path))


def read_bytes(path: Path, largest: int = LARGEST_DOCUMENT) -> bytes:
    """Content of a regular file. Raises OSError if it is another kind of file or has more than `largest` bytes."""
    require_regular(path, largest)
    return path.read_bytes()


def lines_of(stream: IO[AnyStr], path: Path) -> Iterator[AnyStr]:
    """Lines of an open file. Raises OSError for one of more than LONGEST_LINE bytes or characters."""
    while line := stream.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise OSError(errno.EFBIG, f"a line is longer than {LONGEST_LINE}: it is not a table", str(path))
        yield line


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
    """Read one JSON document. Raises OSError, also if it is not a regular file or too large, or ValueError."""
    try:
        return json.loads(read_bytes(path).decode())
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON Lines atomically."""
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read JSON Lines, an object a line.

    Raises OSError, also if it is no regular file or a line is too long, or ValueError.
    """
    require_regular(path)
    with path.open("rb") as stream:
        rows = [json.loads(line) for line in lines_of(stream, path) if line.strip()]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not a JSON object")
    return rows


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
