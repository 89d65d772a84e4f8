"""Which GPUs of this machine a job may use, where no cluster says so.

Every GPU has a lock file that the job holds with `flock`: jobs of several Snakemakes share the GPUs without overlap,
and the kernel frees a GPU when the last process of its job is gone, however it died.
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
"""Variable that names the GPUs to share, as CUDA_VISIBLE_DEVICES would."""
FOLDER = "Z1G_LEASES"
"""Variable that names the folder of lock files, which must be on this machine; default: one for all users."""
POLL_S = 0.2


def gpu_pool() -> list[str]:
    """Names of the GPUs that jobs share: $Z1G_GPUS, else CUDA_VISIBLE_DEVICES, else all that the driver lists."""
    for variable in (POOL, "CUDA_VISIBLE_DEVICES"):
        if variable in os.environ:
            return os.environ[variable].replace(",", " ").split()
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    return listed.stdout.split() if listed.returncode == 0 else []


def gpus_at_once(asked: Any) -> int:
    """How many GPUs jobs may hold together: `gpus=` of Snakemake's `--config`. Raises UserError for more than all."""
    there = len(gpu_pool())
    if not str(asked).isdecimal() or int(asked) > there:
        raise UserError(f"--config gpus={asked}: give a number up to {there}, the GPUs that this machine shares")
    return int(asked)


@contextmanager
def leased(n: int) -> Iterator[tuple[list[str], list[int]]]:
    """Hold `n` GPUs of the pool while the block runs: their names, and the descriptors that children must inherit.

    Waits until so many are free. A request takes all its GPUs or none, in the order of asking, so that a request for
    many is not passed over. Raises UserError where the pool is too small.
    """
    pool = gpu_pool()
    if n > len(pool):
        raise UserError(f"{n} GPUs asked for, but this machine shares {len(pool)} ({POOL}, CUDA_VISIBLE_DEVICES)")
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
    """Locks on `n` GPUs by name, or none at all."""
    found: dict[str, int] = {}
    for name in pool:
        descriptor = _open(folder / f"gpu-{name.replace('/', '_')}")
        if not try_lock(descriptor):
            os.close(descriptor)
            continue
        found[name] = descriptor
        if len(found) == n:
            return found
    for descriptor in found.values():
        os.close(descriptor)
    return {}


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
        folder.chmod(0o1777)  # other users' jobs take part
    return folder


def _open(path: Path) -> int:
    """A descriptor to lock. Linux refuses O_CREAT on another user's file in a shared folder, so it comes second."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_CREAT, 0o644)
