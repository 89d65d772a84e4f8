"""Files of S3 buckets, copied from and to folders of this machine: `s3://BUCKET/PATH`.

The client (s3fs, the extra `s3`) finds credentials and the server by AWS's own variables and files, among them
`AWS_ENDPOINT_URL` for other servers than Amazon's. All that reads data reads the local copy.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.files import atomic_file, read_json, write_json
from z1g.core.locks import waiting
from z1g.core.progress import Meter
from z1g.core.urls import SCHEME

AT_ONCE = 16
"""Files that are copied side by side, as small ones take no longer than the way to the server and back."""
STAMPS, LOCK = ".z1g-copied.json", ".z1g-copying.lock"
"""In a folder of copies: which state of each file is there, and the lock of who is copying."""
CLIENTS = ("aiobotocore", "aiohttp", "botocore")
"""Packages whose errors the client raises, besides OSErrors."""
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors that are not about the bucket."""
LONGEST = 300
"""Length of what is told of an error, characters."""
QUIET_S = 5.0

Stamp = tuple[str, int, int]
"""State of a file: entity tag and bytes in the bucket, modification time (ns) of the copy."""


@dataclass(frozen=True)
class _Stored:
    """A file of a bucket: its key with the bucket's name, entity tag and bytes."""

    key: str
    tag: str
    size: int


def key_of(url: str) -> str:
    """`BUCKET/PATH` of a URL. Raises UserError for what is none, and for paths with empty parts or dots."""
    key = url.removeprefix(SCHEME).rstrip("/")
    if not _is_plain(key) or "/" not in key:
        raise UserError(f"{url}: a place in a bucket is {SCHEME}BUCKET/PATH")
    return key


def copy_from(url: str, folder: Path, wanted: Callable[[str], bool] | None = None) -> None:
    """Make `folder` a copy of what is below a URL, or of the one file there. Raises UserError.

    wanted: which files, by their names relative to the URL; None is all. Only what is not in the folder as it is in the
    bucket (by entity tag and size) is copied, and copies of what the bucket has no longer are removed. A file is there
    completely or not at all; other processes that copy to the folder wait.
    """
    key = key_of(url)
    with _one_line_errors(url):
        client = _client()
        listed = client.find(key, detail=True)
    files = {}
    for entry in listed.values():
        name = _name(entry["name"], key)
        if not name.endswith("/") and (wanted is None or wanted(name)):
            files[name] = _Stored(entry["name"], str(entry.get("ETag", "")), int(entry["size"]))
    if not files:
        raise UserError(f"{url}: the bucket has no such file or folder")
    if strange := next((name for name in files if not _is_plain(name)), None):
        raise UserError(f"{url}: {strange!r} cannot be the name of a file here; rename it in the bucket")
    with waiting(folder / LOCK), _one_line_errors(url):
        _bring_up_to_date(folder, files, client, Meter(f"copying {url}", len(files), quiet_s=QUIET_S))


def copy_to(folder: Path, names: Sequence[str], url: str, replaced: Callable[[str], bool]) -> None:
    """Copy files of `folder` below a URL. Raises UserError.

    The last of `names` is the file by which readers know that all are there: it is removed at first and written at
    last, so that nobody takes a mixture of old and new files for a whole. replaced: which other files are removed.
    """
    key, last = key_of(url), names[-1]
    with _one_line_errors(url):
        client = _client()
        old = {_name(found, key) for found in client.find(key)}
        if last in old:
            client.rm_file(f"{key}/{last}")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            jobs = [pool.submit(client.put_file, str(folder / name), f"{key}/{name}") for name in names[:-1]]
            jobs += [pool.submit(client.rm_file, f"{key}/{name}") for name in old - {*names} if replaced(name)]
            for job in jobs:
                job.result()
        client.put_file(str(folder / last), f"{key}/{last}")


def _bring_up_to_date(folder: Path, files: dict[str, _Stored], client: Any, meter: Meter) -> None:
    """Copy and remove what has changed. What was copied before an error is known the next time."""
    stamps = _stamps(folder)
    for name in stamps.keys() - files.keys():
        (folder / name).unlink(missing_ok=True)
        del stamps[name]
    absent = [name for name, file in files.items() if stamps.get(name) != _stamp(file, folder / name)]
    with meter, ThreadPoolExecutor(AT_ONCE) as pool:
        meter.advance(len(files) - len(absent))
        jobs = {pool.submit(_copy_file, client, files[name], folder / name): name for name in absent}
        try:
            for job in as_completed(jobs):
                job.result()
                meter.advance()
        finally:
            pool.shutdown(cancel_futures=True)
            copied = [job for job in jobs if not job.cancelled() and job.exception() is None]
            write_json(folder / STAMPS, {**stamps, **{jobs[job]: job.result() for job in copied}})


def _copy_file(client: Any, file: _Stored, path: Path) -> Stamp:
    with atomic_file(path, durable=False) as temporary:
        client.get_file(file.key, str(temporary))
        size = temporary.stat().st_size
        if size != file.size:
            raise OSError(f"{file.key} has {file.size} bytes, of which {size} came; start the command again")
    return _stamp(file, path)


def _stamp(file: _Stored, path: Path) -> Stamp:
    """State of a file and of its copy, which may be missing."""
    try:
        return file.tag, file.size, path.stat().st_mtime_ns
    except OSError:
        return file.tag, file.size, 0


def _stamps(folder: Path) -> dict[str, Stamp]:
    """What is recorded of the copies in a folder, nothing if that is damaged."""
    try:
        return {
            str(name): (str(tag), int(size), int(time))
            for name, (tag, size, time) in read_json(folder / STAMPS).items()
            if _is_plain(name)
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _name(found: str, key: str) -> str:
    """The name of a file relative to a URL; the file's own name if the URL is the file."""
    return found.rpartition("/")[2] if found == key else found.removeprefix(f"{key}/")


def _is_plain(name: str) -> bool:
    """Whether a name stays in its folder."""
    return "\0" not in name and not {"", ".", ".."} & {*name.split("/")}


def _client() -> Any:
    import fsspec

    # Two calls of one process may be about different servers, and listings change.
    return fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)


@contextmanager
def _one_line_errors(url: str) -> Iterator[None]:
    """Raise the client's errors as UserErrors of one line."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"{url}: buckets need the package s3fs: pip install 'z1g[s3]'") from error
    except Exception as error:
        if getattr(error, "errno", None) in OF_THE_DISK:
            raise
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in CLIENTS:
            raise
        told = " ".join(str(error).split())[:LONGEST] or type(error).__name__
        raise UserError(
            f"{url}: {told}; check the name, the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE) "
            "and the server (AWS_ENDPOINT_URL)"
        ) from error
