"""A job's sign of life: a small file that a thread rewrites every few seconds with the job's progress.

`z1g status` reads it, from another shell or another node. It is removed when the job ends, for whatever reason, except
by SIGKILL or a lost machine: a file whose process is gone says how far a killed job had come.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger("z1g")
EVERY_S = 5.0
SILENT_S = 60.0
"""Age of a sign of life above which a process on another machine counts as gone."""


@dataclass(frozen=True)
class Progress:
    """What a job is doing: `step` of `of` units of `task`, units a second, and the latest figures (losses)."""

    task: str = ""
    step: int = 0
    of: int = 0
    rate: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Heartbeat:
    """Content of the file. `started` and `time` are seconds since 1970, `born` is when the process was created.

    `gpus` counts those of all nodes, `slurm` is the id of the SLURM job.
    """

    host: str
    pid: int
    born: float
    started: float
    time: float
    gpus: int = 0
    slurm: str | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def seconds(self) -> float:
        """Seconds from the start of the job to this sign of life."""
        return max(self.time - self.started, 0.0)


class _Reported:
    """The latest progress of this process, and whether anyone reads it."""

    wanted = False
    progress = Progress()


def report(task: str, step: int, of: int, rate: float, figures: Mapping[str, float]) -> None:
    """Say how far this process is. Costs a few microseconds inside of `beating`, else none."""
    if _Reported.wanted:
        _Reported.progress = Progress(task, step, of, rate, figures)


@contextlib.contextmanager
def beating(file: Path, gpus: int, every_s: float = EVERY_S) -> Iterator[None]:
    """Keep a job's sign of life in `file` during the block. `gpus`: GPUs of the job on all nodes.

    A full disk or a lost folder does not stop the job.
    """
    import psutil

    started, born, ended = time.time(), psutil.Process().create_time(), threading.Event()
    host, slurm = socket.gethostname(), os.environ.get("SLURM_JOB_ID")

    def beat() -> None:
        _write(file, Heartbeat(host, os.getpid(), born, started, time.time(), gpus, slurm, _Reported.progress))

    def keep_beating() -> None:
        while not ended.wait(every_s):
            beat()

    _Reported.wanted, _Reported.progress = True, Progress()
    beat()
    thread = threading.Thread(target=keep_beating, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        _Reported.wanted = False
        ended.set()
        thread.join()
        remove(file)


def remove(file: Path) -> None:
    """Remove a sign of life, if there is one."""
    with contextlib.suppress(OSError):
        file.unlink(missing_ok=True)


def _write(file: Path, beat: Heartbeat) -> None:
    """Replace the file. It is not synchronized with the disk: after a power failure nobody needs it.

    The temporary file has the same name each time, so that a killed process leaves one at most.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    figures = {name: value for name, value in beat.progress.figures.items() if math.isfinite(value)}
    content = {**vars(beat), "progress": {**vars(beat.progress), "figures": figures}}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(json.dumps(content).encode())
        os.replace(temporary, file)
    except OSError as error:
        remove(temporary)
        log.debug("no sign of life: %s", error)


def read(file: Path) -> Heartbeat | None:
    """The sign of life in a file; None if there is none, or an unreadable one."""
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
        return Heartbeat(**{**content, "progress": Progress(**content["progress"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def alive(beat: Heartbeat, now: float | None = None) -> bool:
    """Whether the process is there: on this host by its id and its time of creation, elsewhere by a recent beat."""
    if beat.host != socket.gethostname():
        return (time.time() if now is None else now) - beat.time < SILENT_S
    import psutil

    try:
        process = psutil.Process(beat.pid)
        # Times of creation are derived from the time of boot, which a corrected clock moves.
        return bool(abs(process.create_time() - beat.born) < 2 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
