"""One job at a time on one output: a second one waits, and finds it made."""

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("z1g")
POLL_S = 0.5


@contextmanager
def turn(path: Path) -> Iterator[tuple[bool, int]]:
    """Hold a lock file while the block runs: whether another job had to be waited for, and the lock's descriptor.

    A Snakemake that was killed leaves its jobs running, and a new one starts the same jobs again; so do two Snakemakes
    on one results folder. The kernel frees the lock when the last process that holds its descriptor is gone. A file
    system without locks is used without.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    try:
        waited = False
        while not _taken(descriptor):
            if not waited:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another job"
                log.info("%s is being made by %s: waiting for it", path.parent, holder)
            waited = True
            time.sleep(POLL_S)
        job = os.environ.get("SLURM_JOB_ID", "-")
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{socket.gethostname()} process {os.getpid()} job {job}".encode(), 0)
        yield waited, descriptor
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        log.warning("this file system has no locks: never start two jobs on one output")
    return True
