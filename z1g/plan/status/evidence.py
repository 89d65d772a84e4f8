"""What is known about the jobs of all stages at one moment: SLURM's queue, and what Snakemake left in `.snakemake/`."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from z1g.jobs.squeue import JobKey, SlurmJob, slurm_queue


@dataclass(frozen=True)
class Mark:
    """Snakemake's marker of an output that a job has begun to write: when it began, and the job's id in SLURM."""

    time: float
    external: str | None


@dataclass(frozen=True)
class Evidence:
    """What is known at the time `now`, s since 1970.

    `queue`: SLURM's jobs, None if SLURM is not here. `marks`: Snakemake's markers by absolute path of the output.
    `snakemake`: ids and times of creation of the Snakemake processes of this folder on this host. `locked`: whether its
    lock of this folder is there.
    """

    now: float
    queue: Mapping[JobKey, SlurmJob] | None = None
    marks: Mapping[str, Mark] = field(default_factory=dict)
    snakemake: Mapping[int, float] = field(default_factory=dict)
    locked: bool = False

    @classmethod
    def gather(cls, folder: Path, queue: Mapping[JobKey, SlurmJob] | None = None, ask: bool = True) -> Evidence:
        """Look at this moment. `folder` is where Snakemake runs; `ask`: whether to ask SLURM for `queue`."""
        state = folder / ".snakemake"
        locked = any((state / "locks").glob("*.lock"))
        return cls(
            time.time(),
            slurm_queue() if ask else queue,
            dict(_marks(folder, state / "incomplete")),
            dict(_snakemakes(folder, locked)),
            locked,
        )

    def mark(self, output: Path) -> Mark | None:
        """The marker of an output, if it has one."""
        return self.marks.get(os.path.abspath(output))

    def is_of_a_live_snakemake(self, mark: Mark) -> bool:
        """Whether a Snakemake that runs now made a marker; others were left by killed ones."""
        return any(mark.time >= born for born in self.snakemake.values())

    def about_snakemake(self) -> str:
        """A sentence about Snakemake itself."""
        if self.snakemake:
            return f"Snakemake runs here (process {', '.join(map(str, sorted(self.snakemake)))})."
        if self.locked:
            return (
                "Snakemake does not run on this host, but its lock is there: it runs elsewhere, or was killed "
                "(then: snakemake --unlock, and the same command again)."
            )
        return "Snakemake does not run."


def _marks(folder: Path, incomplete: Path) -> Iterator[tuple[str, Mark]]:
    """Markers are files whose path is the output's in base64, cut where it is too long for a file name."""
    for file in incomplete.rglob("*"):
        with contextlib.suppress(OSError, ValueError, binascii.Error):
            if not file.is_file():
                continue
            *parts, last = file.relative_to(incomplete).parts
            encoded = "".join(part.removeprefix("@") for part in parts) + last
            output = base64.b64decode(encoded, altchars=b"-_", validate=True).decode()
            content = json.loads(file.read_bytes() or b"{}")
            yield os.path.abspath(folder / output), Mark(file.stat().st_mtime, content.get("external_jobid"))


def _snakemakes(folder: Path, locked: bool) -> Iterator[tuple[int, float]]:
    """Snakemake's processes that run in a folder, without those that it starts itself for single jobs (`--mode`).

    Where the folder is not locked, those are left that work without a lock, as `z1g search` starts them.
    """
    import psutil

    for process in psutil.process_iter(["pid", "cmdline", "cwd", "create_time"]):
        words, cwd = process.info["cmdline"] or [], process.info["cwd"]
        names = [Path(word).name for word in words[:4]]
        called = "snakemake" in names or any(name.endswith("snakemake.py") for name in names)
        with contextlib.suppress(OSError):  # its folder may have been deleted
            works = called and "--mode" not in words and (locked or "--nolock" in words)
            if works and cwd and os.path.samefile(cwd, folder):
                yield process.info["pid"], process.info["create_time"]
