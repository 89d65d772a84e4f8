"""File locks. The kernel releases a lock when the last process that holds its descriptor ends."""

import errno
import fcntl
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from z1g.core.errors import UserError
from z1g.core.files import by_own_name

log = logging.getLogger("z1g")
POLL_S = 0.5
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def try_lock(descriptor: int) -> bool:
    """Acquire the lock of an open file if it is free. On a file system without locks, warn and return True."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        log.warning("this file system does not support locks: never start two jobs that write the same output")
    return True


def wait_for_lock(descriptor: int) -> None:
    """Acquire the lock of an open file, waiting in the order of requests."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def holder_of(path: Path) -> str | None:
    """Who holds a lock file: its signature, as in "node7 process 4711 job -"; None if it is free or there is none.

    Asks for a shared lock, which it gives back at once: a job that asks at this very moment tries again.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor) or "another process"
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return None


@contextmanager
def waiting(path: Path) -> Iterator[tuple[bool, int]]:
    """Hold a lock file during the block, after waiting for any other process that holds it.

    Yields whether it had to wait, and the descriptor of the lock. A killed Snakemake leaves its jobs running, and a
    new one starts the same jobs again; so do two Snakemake processes on one results folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    try:
        waited = False
        while not try_lock(descriptor):
            if not waited:
                log.info("%s is being written by %s: waiting", path.parent, _holder(descriptor) or "another job")
            waited = True
            time.sleep(POLL_S)
        _sign(descriptor, path)
        yield waited, descriptor
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path) -> Iterator[int]:
    """Hold a lock file during the block; yields its descriptor.

    Raises UserError if another process holds it: two jobs must never write the same output.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    try:
        if not try_lock(descriptor):
            holder = _holder(descriptor) or "another process"
            raise UserError(f"{path.parent} is being written by {holder}; wait for it or end it first")
        _sign(descriptor, path)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder inside `folder` for unfinished files while no other process may write to `folder`.

    Nothing of the lock is left afterwards; what a killed process left is removed by the next one. Raises UserError if
    another process writes to `folder`, and OSError if it cannot be written, by the names that files get in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, work = folder / ".z1g.lock", folder / ".z1g.unfinished"
    while True:
        with by_own_name(file, folder), by_own_name(work, folder), exclusive(file) as descriptor:
            if not _is_at(descriptor, file):
                continue  # the process that held it has just removed it
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
                file.unlink(missing_ok=True)
            return


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace").strip()


def _sign(descriptor: int, path: Path) -> None:
    """Write the holder into the lock file. Raises OSError with its name, which errors of an open file do not have."""
    job = os.environ.get("SLURM_JOB_ID", "-")
    try:
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{socket.gethostname()} process {os.getpid()} job {job}".encode(), 0)
    except OSError as error:
        error.filename = str(path)
        raise
