"""The jobs that SLURM has for Snakemake: `squeue` lists them, and a job's comment says which job of the DAG it is."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from dataclasses import dataclass

COMMENT = re.compile(r"rule_([a-z]+)_wildcards_([0-9a-f]+)(?:_(\d+))?$")
"""Written by Snakemake's executor for SLURM: the rule, the stage's id, and the number of the chunk."""
ANSWER_S = 10.0
STARTED = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")
"""States in which a job has nodes and may have processes. In all others that `squeue` lists, it waits."""

JobKey = tuple[str, str, int | None]
"""Stage, id and chunk."""


@dataclass(frozen=True)
class SlurmJob:
    """A job in SLURM's queue; `reason` says why it waits."""

    id: str
    state: str
    reason: str = ""

    @property
    def started(self) -> bool:
        """Whether it has nodes."""
        return self.state in STARTED


def slurm_queue() -> dict[JobKey, SlurmJob] | None:
    """Jobs of this user in SLURM's queue; None without `squeue`, or if SLURM does not answer."""
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--user", getpass.getuser(), "--format", "%i|%T|%r|%k"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_S)
    except (OSError, subprocess.SubprocessError):
        return None
    jobs: dict[JobKey, SlurmJob] = {}
    for line in done.stdout.splitlines():
        number, state, reason, comment = (*line.split("|", 3), "", "", "")[:4]
        match = COMMENT.search(comment.strip())
        if match:
            key = match[1], match[2], None if match[3] is None else int(match[3])
            # Of a job and its successor, the one that has started counts.
            if key not in jobs or not jobs[key].started:
                jobs[key] = SlurmJob(number.strip(), state.strip(), reason.strip())
    return jobs
