"""Jobs of made-up results: their outputs, records, signs of life, and Snakemake's markers."""

import base64
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import psutil

from z1g.core.files import write_json
from z1g.core.stages import CHAIN

LAST = {stage.name: stage.last for stage in CHAIN}


def write_output(folder: Path, chunk: int = 0) -> Path:
    """The output that a job of a stage writes last."""
    path = folder / LAST[folder.parent.name].format(chunk=f"{chunk:05d}")
    if path.suffix:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    else:
        path.mkdir(parents=True)
    return path


def write_record(folder: Path, job: str, *attempts: dict[str, Any]) -> None:
    """A job's record. An attempt has `seconds` and, if it is not a success on no GPU, what differs."""
    plain = {"finished": True, "stopped": False, "nodes": 1, "gpus": []}
    write_json(folder / "jobs" / f"{job}.json", {"job": job, "attempts": [{**plain, **a} for a in attempts]})


def write_beat(folder: Path, job: str, **changes: Any) -> Path:
    """A job's sign of life, of this process unless told otherwise: started 100 s ago, seen now, no progress."""
    now, own = time.time(), psutil.Process()
    content = {
        "host": socket.gethostname(), "pid": own.pid, "born": own.create_time(), "started": now - 100, "time": now,
        "gpus": 0, "slurm": None, "progress": {},
    }  # fmt: skip
    write_json(folder / "progress" / f"{job}.json", {**content, **changes})
    return folder / "progress" / f"{job}.json"


def write_log(folder: Path, job: str, text: str) -> None:
    """A job's log."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    (folder / "logs" / f"{job}.log").write_text(text)


def mark(workdir: Path, output: Path, external: str | None = None) -> None:
    """Snakemake's marker of an incomplete output."""
    name = base64.urlsafe_b64encode(os.path.relpath(output, workdir).encode()).decode()
    longest = os.pathconf("/tmp", "PC_NAME_MAX")
    assert len(name) < longest
    file = workdir / ".snakemake/incomplete" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"external_jobid": external}))
