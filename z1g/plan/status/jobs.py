"""The state of one job: a chunk of a stage, or a stage that has no chunks."""

from __future__ import annotations

import math
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from z1g.core.heartbeat import Heartbeat, alive, read
from z1g.core.locks import holder_of
from z1g.core.stages import CHAIN, CHUNKED, TRAINED
from z1g.jobs.budget import SPENT
from z1g.jobs.records import attempts, beat_file, gpu_seconds, job_name, lock_file
from z1g.plan.status.evidence import Evidence
from z1g.plan.status.nodes import StageNode

State = Literal["waiting", "queued", "running", "stopped", "failed", "pruned", "done"]
STATES: tuple[State, ...] = get_args(State)
LAST = {stage.name: stage.last for stage in CHAIN}
LOG_TAIL_BYTES, LINE_CHARACTERS = 8192, 400


@dataclass(frozen=True)
class JobStatus:
    """A job: its state and why it is in it.

    `beat` is its sign of life, also that of a killed job. `gpu_hours` are those of all attempts, the present or
    killed one included. `seconds` is the wall time of its successful attempt.
    """

    stage: str
    id: str
    job: str
    state: State
    detail: str = ""
    slurm: str | None = None
    beat: Heartbeat | None = None
    gpu_hours: float = 0.0
    seconds: float | None = None

    @property
    def left_s(self) -> float | None:
        """Seconds that a running job needs at its present rate; None if it has none."""
        if self.state != "running" or self.beat is None or not self.beat.progress.rate > 0:
            return None
        progress = self.beat.progress
        return max(progress.of - progress.step, 0) / progress.rate


def job_status(results: Path, node: StageNode, chunk: int, seen: Evidence) -> JobStatus:
    """The state of a job. `chunk` is 0 for a stage without chunks."""
    number = chunk if node.stage in CHUNKED else None
    folder, job = results / node.stage / node.id, job_name(node.stage, number)
    history, beat = attempts(folder, job), read(beat_file(folder, job))
    queued = (seen.queue or {}).get((node.stage, node.id, number))
    state, detail = _state(folder, node, number, job, history, beat, seen)
    hours = math.fsum(_gpu_seconds(attempt) for attempt in history)
    if beat is not None:
        until = seen.now if state == "running" else beat.time
        hours += max(until - beat.started, 0.0) * beat.gpus
    finished = [attempt.get("seconds") for attempt in history if attempt.get("finished")]
    slurm = queued.id if queued else beat.slurm if beat else None
    return JobStatus(
        node.stage, node.id, job, state, detail, slurm, beat, hours / 3600, finished[-1] if finished else None
    )  # fmt: skip


def _state(
    folder: Path,
    node: StageNode,
    chunk: int | None,
    job: str,
    history: list[dict[str, Any]],
    beat: Heartbeat | None,
    seen: Evidence,
) -> tuple[State, str]:
    """State and detail, from the strongest evidence to the weakest."""
    queued = (seen.queue or {}).get((node.stage, node.id, chunk))
    if beat is not None and _lives(beat, beat_file(folder, job), seen):
        silent = seen.now - beat.time
        return "running", f"no sign of life for {silent:.0f} s" if silent > 60 else ""
    last = folder / LAST[node.stage].replace("{chunk}", f"{chunk or 0:05d}")
    mark = seen.mark(last)
    if last.exists():
        left = mark is not None and not seen.is_of_a_live_snakemake(mark)
        return "done", "its Snakemake was killed: it may run again" if left else ""
    if queued is not None:
        return ("running", "starts") if queued.started else ("queued", f"SLURM {queued.id}: {queued.reason}")
    holder = holder_of(lock_file(folder, node.stage, chunk))
    if holder is not None:
        return (
            ("queued", f"{holder} waits for GPUs") if beat is None else ("running", f"{holder}; its first rank is gone")
        )
    if mark is not None and seen.is_of_a_live_snakemake(mark):
        # Without SLURM at hand, the executor's own note of the job's id.
        return ("running", "starts") if mark.external is None else ("queued", f"SLURM {mark.external}")
    if node.pruned:
        return "pruned", ""
    return _ended(folder, node, job, history, beat)


def _ended(
    folder: Path, node: StageNode, job: str, history: list[dict[str, Any]], beat: Heartbeat | None
) -> tuple[State, str]:
    """State of a job that has no output and that nobody runs."""
    if beat is not None:
        return "failed", _killed(folder, node, beat)
    line = _last_line(folder / "logs" / f"{job}.log")
    if history and not history[-1].get("finished"):
        return ("stopped" if history[-1].get("stopped") else "failed"), line
    if not history and line:
        return ("stopped" if SPENT in line else "failed"), line
    return "waiting", node.note


def _lives(beat: Heartbeat, file: Path, seen: Evidence) -> bool:
    """Whether a job's process is there.

    Of this user's jobs, SLURM knows more than the age of a file on a shared disk tells.
    """
    if beat.slurm is not None and seen.queue is not None and beat.host != socket.gethostname() and _own(file):
        return any(job.id == beat.slurm and job.started for job in seen.queue.values())
    return alive(beat, seen.now)


def _own(file: Path) -> bool:
    try:
        return file.stat().st_uid == os.getuid()
    except OSError:
        return False


def _killed(folder: Path, node: StageNode, beat: Heartbeat) -> str:
    """How far a killed job had come, and what of that is lost."""
    where = f"killed on {beat.host} after {beat.seconds:.0f} s"
    progress = beat.progress
    if progress.of:
        where += f", at {progress.step} of {progress.of} ({progress.task})"
    kept = max((_step(file) for file in (folder / "checkpoints").glob("step-*.pt")), default=0)
    if node.stage not in TRAINED or not kept:
        return f"{where}; it starts again"
    # The sign of life may be older than the checkpoint, or from before the training.
    lost = progress.step - kept if progress.task == node.stage else 0
    return f"{where}; it continues from step {kept}" + (f", {lost} steps are lost" if lost > 0 else "")


def _step(file: Path) -> int:
    digits = file.stem.removeprefix("step-")
    return int(digits) if digits.isdecimal() else 0


def _gpu_seconds(attempt: dict[str, Any]) -> float:
    try:
        return gpu_seconds(attempt)
    except (KeyError, TypeError):
        return 0.0


def _last_line(log: Path) -> str:
    """The last line of a log that has any text."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(log.stat().st_size - LOG_TAIL_BYTES, 0))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return "".join(c if c.isprintable() else " " for c in lines[-1])[:LINE_CHARACTERS] if lines else ""
