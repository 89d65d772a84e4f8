"""Records of the DAG's jobs: machine, time, package versions, energy, and digests of the outputs.

A job writes `jobs/<job>.json` in its stage folder: {"job", "attempts": [...], "outputs": {file: {"sha256", "bytes"}}}.
The list keeps attempts that were preempted or failed; an attempt that was killed by SIGKILL is not recorded, but leaves
its last sign of life in `progress/<job>.json` (`z1g.core.heartbeat`).
"""

import contextlib
import logging
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from z1g.core.errors import Preempted
from z1g.core.recorded import record_file, record_owner, sha256
from z1g.core.sealed import read_sealed, write_sealed

log = logging.getLogger("z1g")
PACKAGES = (
    "torch", "diffusers", "transformers", "accelerate", "safetensors", "gsplat", "numpy", "scipy", "trimesh", "lpips",
    "stlpips-pytorch", "efficientnet-lite-pytorch", "snakemake",
)  # fmt: skip
ROOT = Path(__file__).parents[2]


def job_name(verb: str, chunk: int | None) -> str:
    """Name of a job in its stage folder."""
    return verb if chunk is None else f"chunk-{chunk:05d}"


def beat_file(folder: Path, job: str) -> Path:
    """The file with the sign of life of a job."""
    return folder / "progress" / f"{job}.json"


def lock_file(folder: Path, verb: str, chunk: int | None) -> Path:
    """The lock that a job holds until its last process ends."""
    return folder / ".turns" / (verb if chunk is None else f"{verb}-{chunk:05d}")


@contextlib.contextmanager
def recorded(folder: Path, job: str, outputs: Sequence[Path], nodes: int = 1) -> Iterator[None]:
    """Record the block as an attempt at a job, with digests of the outputs if it succeeds."""
    file, owner = record_file(folder, job), record_owner(folder, job)
    earlier = attempts(folder, job)
    if any(attempt.get("finished") for attempt in earlier):
        earlier = []
    started, clock, energy = datetime.now(UTC), time.monotonic(), Energy()
    finished = stopped = False
    try:
        yield
        finished = True
    except Preempted:
        stopped = True
        raise
    finally:
        attempt = {
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 3),
            "finished": finished,
            "stopped": stopped,
            "command": ["z1g", *sys.argv[1:]],
            "nodes": nodes,
            "gpus": energy.names,
            # The meters of other nodes are not accessible.
            "gpu_joules": energy.joules() if nodes == 1 else None,
            **machine(),
            **provenance(),
        }
        output_digests = digests(outputs, folder) if finished else {}
        write_sealed(file, {"job": job, "attempts": [*earlier, attempt], "outputs": output_digests}, owner)


def attempts(folder: Path, job: str) -> list[dict[str, Any]]:
    """All attempts in the record of a stage folder's job; none if there is no record or it cannot be read."""
    try:
        found = read_sealed(record_file(folder, job), record_owner(folder, job))["attempts"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found if isinstance(found, list) and all(isinstance(attempt, dict) for attempt in found) else []


def gpu_seconds(attempt: Mapping[str, Any]) -> float:
    """Wall time of an attempt times its GPUs on all nodes, seconds."""
    return float(attempt["seconds"] * len(attempt["gpus"]) * attempt["nodes"])


def recorded_gpu_hours(folder: Path) -> float:
    """GPU hours of all recorded attempts at the jobs of a stage folder."""
    records = sorted((folder / "jobs").glob("*.json"))
    return math.fsum(gpu_seconds(attempt) for file in records for attempt in attempts(folder, file.stem)) / 3600


class Energy:
    """Energy meters of the GPUs visible to this process, if NVIDIA's driver has them; they start at construction.

    `names` has an entry for each GPU; it is "GPU" if the driver does not report a name.
    """

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self.names = ["GPU" for _ in visible_gpus(0)]
        try:
            import pynvml

            pynvml.nvmlInit()
            self._handles = [_handle(pynvml, name) for name in visible_gpus(pynvml.nvmlDeviceGetCount())]
            self.names = [_text(pynvml.nvmlDeviceGetName(handle)) for handle in self._handles]
        except Exception as error:  # missing, old or failing drivers must not stop a job
            log.debug("no GPU meters: %s", error)
        self._start = self._millijoules()

    def joules(self) -> float | None:
        """Energy of these GPUs since construction, J; 0 without GPUs, None if a GPU has no meter."""
        if not self.names:
            return 0.0
        end = self._millijoules() if self._handles else None
        return None if end is None or self._start is None else round((end - self._start) / 1000, 1)

    def _millijoules(self) -> int | None:
        try:
            import pynvml

            return sum(int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in self._handles)
        except Exception as error:
            log.debug("no GPU meters: %s", error)
            return None


def visible_gpus(count: int) -> list[str]:
    """Names of the GPUs in CUDA_VISIBLE_DEVICES; without that variable, of all `count` GPUs of the machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(i) for i in range(count)] if visible is None else visible.replace(",", " ").split()


def _handle(nvml: Any, name: str) -> Any:
    return nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdecimal() else nvml.nvmlDeviceGetHandleByUUID(name)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def digests(paths: Iterable[Path], folder: Path) -> dict[str, dict[str, Any]]:
    """SHA-256 and size in bytes of all files at the paths, by name relative to `folder`; no hidden ones in folders."""
    files: list[Path] = []
    for path in paths:
        inside = (file for file in sorted(path.rglob("*")) if not file.name.startswith("."))
        files += inside if path.is_dir() else [path]
    return {
        os.path.relpath(file, folder): {"sha256": sha256(file), "bytes": file.stat().st_size}
        for file in files
        if file.is_file()
    }


@cache
def provenance() -> dict[str, Any]:
    """Versions of Python and packages, the commit, whether files differ from it, and the lock file's digest."""
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    lock = ROOT / "requirements.lock"
    return {
        "versions": {"python": platform.python_version()} | dict(_versions()),
        "commit": commit,
        "changed": bool(changes) if commit else None,
        "lock": sha256(lock) if lock.is_file() else None,
    }


def _versions() -> Iterator[tuple[str, str]]:
    """Names and versions of those of PACKAGES that are installed."""
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            yield name, version(name)


def machine() -> dict[str, Any]:
    """Description of the machine that this process runs on."""
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")


def _git(*words: str) -> str | None:
    try:
        command = ["git", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
