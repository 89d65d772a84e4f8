"""Allocation of this machine's GPUs to jobs without a cluster scheduler.

Every GPU has a lock file that the job holds with `flock`, or as many as jobs may share it. Jobs of several Snakemake
processes share the GPUs without overlap, and the kernel releases a GPU when the last process of its job ends, for
whatever reason.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.locks import try_lock, wait_for_lock

POOL = "Z1G_GPUS"
"""Environment variable with the GPUs to share, in the format of CUDA_VISIBLE_DEVICES."""
FOLDER = "Z1G_LEASES"
"""Environment variable with the folder of lock files, on a local file system; the default is shared by all users."""
SHARED = "Z1G_JOBS_PER_GPU"
"""Environment variable with the number of jobs that a GPU may have at once; the default is 1."""
MOST_SHARED = 64
POLL_S = 0.2


def gpu_pool() -> list[str]:
    """Names of the GPUs that jobs share: $Z1G_GPUS, else CUDA_VISIBLE_DEVICES, else all GPUs of the driver."""
    for variable in (POOL, "CUDA_VISIBLE_DEVICES"):
        if variable in os.environ:
            return os.environ[variable].replace(",", " ").split()
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    return listed.stdout.split() if listed.returncode == 0 else []


def jobs_per_gpu() -> int:
    """Number of jobs that a GPU may have at once: $Z1G_JOBS_PER_GPU, else 1. Raises UserError for another value."""
    text = os.environ.get(SHARED) or "1"
    if not text.isdecimal() or not 1 <= int(text) <= MOST_SHARED:
        raise UserError(f"{SHARED}={text}: give a number of jobs from 1 to {MOST_SHARED}")
    return int(text)


def leases() -> int:
    """Number of leases that jobs may hold at once, all GPUs together. A job needs one for each of its GPUs."""
    return len(gpu_pool()) * jobs_per_gpu()


def part_of_cores(requested: int, gpus: int, cores: int | None, n_leases: int) -> int:
    """Cores of a job that asks for `requested` and so many GPUs, where all jobs have `cores` and `n_leases` leases.

    At most the part of its leases, so that cores do not leave leases unused. cores None, n_leases 0: as requested.
    """
    if not gpus or cores is None or not n_leases:
        return requested
    return max(1, min(requested, cores * gpus // n_leases))


def gpus_at_once(requested: Any) -> int:
    """Number of leases for all jobs, from `gpus=` of Snakemake's `--config`: those of as many GPUs.

    Raises UserError if the pool is smaller.
    """
    available = len(gpu_pool())
    if not str(requested).isdecimal() or int(requested) > available:
        raise UserError(
            f"--config gpus={requested}: give a number up to {available}, the GPUs that this machine shares"
        )
    return int(requested) * jobs_per_gpu()


@contextmanager
def leased(n: int) -> Iterator[tuple[list[str], list[int]]]:
    """Lease `n` GPUs of the pool for the block; yields their names and the descriptors that children must inherit.

    Waits until `n` GPUs are free. A request takes all its GPUs or none, in the order of requests, so that large
    requests do not starve. GPUs that several jobs may share are free while one of their leases is; those with the
    fewest jobs are taken first. Raises UserError if the pool is too small.
    """
    pool = gpu_pool()
    if n > len(pool):
        raise UserError(f"{n} GPUs requested, but this machine shares {len(pool)} ({POOL}, CUDA_VISIBLE_DEVICES)")
    with ExitStack() as held:
        if not n:
            yield [], []
            return
        folder = _folder()
        with _queue(folder / "queue"):
            free = _free(folder, pool, n)
            while len(free) < n:
                time.sleep(POLL_S)
                free = _free(folder, pool, n)
        for descriptor in free.values():
            held.callback(os.close, descriptor)
        yield list(free), list(free.values())


def _free(folder: Path, pool: list[str], n: int) -> dict[str, int]:
    """Lock `n` GPUs; returns descriptors by name, empty if fewer than `n` are free."""
    locked = {name: found for name in pool if (found := _leases_of(folder, name))}
    chosen = sorted(locked, key=lambda name: -len(locked[name]))[:n] if len(locked) >= n else []
    for name, descriptors in locked.items():
        for descriptor in descriptors[1:] if name in chosen else descriptors:
            os.close(descriptor)
    return {name: locked[name][0] for name in chosen}


def _leases_of(folder: Path, name: str) -> list[int]:
    """Lock all free leases of a GPU."""
    free = []
    for k in range(jobs_per_gpu()):
        descriptor = _open(folder / f"gpu-{name.replace('/', '_')}{f'.{k}' if k else ''}")
        if try_lock(descriptor):
            free.append(descriptor)
        else:
            os.close(descriptor)
    return free


@contextmanager
def _queue(path: Path) -> Iterator[None]:
    descriptor = _open(path)
    try:
        wait_for_lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _folder() -> Path:
    folder = Path(os.environ.get(FOLDER) or Path(tempfile.gettempdir()) / "z1g-leases")
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)  # shared with other users' jobs
    return folder


def _open(path: Path) -> int:
    """Open a lock file. O_CREAT is tried second, because Linux denies it for other users' files in a shared folder."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_CREAT, 0o644)
