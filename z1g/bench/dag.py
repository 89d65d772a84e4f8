"""Benchmark of planning against the number of objects and ablations: time, memory and jobs of a dry run."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError

# Imports stay small, since the peak memory of a child process starts at that of its parent.
CHECKOUT = ("Snakefile", "workflow", "configs")
JOB_TABLE = re.compile(r"^total +(\d+)$", re.MULTILINE)


def measure(objects: Sequence[int], ablations: int, repeats: int) -> dict[str, Any]:
    """Plan `ablations` trainings of scale full over synthetic lists of objects; reports the fastest of `repeats`.

    Works in a temporary copy of the current folder, which must be a checkout. plan_s is the wall time of `z1g plan`,
    dry_run_s and dry_run_mb are the wall time and peak resident memory in MiB of Snakemake's dry run. CPU times are
    reported too, since they hardly depend on the machine's load. Raises UserError if planning fails.
    """
    missing = [name for name in CHECKOUT if not Path(name).exists()]
    if missing:
        raise UserError(f"{', '.join(missing)} not found: run this in a checkout")
    figures: dict[str, Any] = {"ablations": ablations}
    with tempfile.TemporaryDirectory(prefix="z1g-bench-") as folder:
        root = Path(folder)
        _workspace(root, ablations)
        for n in objects:
            write_list(root / "objects.jsonl", n)
            figures[f"{n} objects"] = _dry_run(root, repeats)
    return figures


def write_list(path: Path, n: int) -> None:
    """Write a list of `n` synthetic objects with digests in the format of `z1g list`."""
    with path.open("w", encoding="utf-8") as file:
        for i in range(n):
            digest = hashlib.sha256(str(i).encode()).hexdigest()
            row = {"path": f"shard{i % 160:03d}/{digest[:32]}.glb", "content": digest, "mesh": digest[::-1]}
            file.write(json.dumps(row) + "\n")


def _workspace(root: Path, ablations: int) -> None:
    for name in CHECKOUT:
        source = Path(name)
        shutil.copytree(source, root / name) if source.is_dir() else shutil.copy(source, root / name)
    (root / "local").symlink_to("workflow/profiles/local")
    (root / "ablations").mkdir()
    for i in range(ablations):
        # Pairs of ablations share a stage 1; each has its own stage 2.
        rate, other = 1e-5 * (1 + i), 1e-4 * (1 + i // 2)
        text = (
            "description: made up\n"
            f"autodecoder: {{train: {{optimizer: {{lr: {other:.3e}}}}}}}\n"
            f"unet: {{train: {{optimizer: {{lr: {rate:.3e}}}}}}}\n"
        )
        (root / "ablations" / f"made_up_{i:03d}.yaml").write_text(text, encoding="utf-8")


def _dry_run(root: Path, repeats: int) -> dict[str, Any]:
    options = ["--config", "scale=full", "objects=objects.jsonl", "results=results", "--", "ablation_all"]
    dry_run = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--profile", "local", *options]
    plan = [sys.executable, "-m", "z1g", "plan", "--objects", "objects.jsonl"]
    planned = [_timed(plan, root) for _ in range(repeats)]
    dry = [_timed(dry_run, root) for _ in range(repeats)]
    jobs = JOB_TABLE.search(dry[0].output)
    return {
        "jobs": int(jobs[1]) if jobs else 0,
        "plan_s": round(min(run.seconds for run in planned), 2),
        "plan_cpu_s": round(min(run.cpu_seconds for run in planned), 2),
        "dry_run_s": round(min(run.seconds for run in dry), 2),
        "dry_run_cpu_s": round(min(run.cpu_seconds for run in dry), 2),
        "dry_run_mb": round(max(run.memory_mb for run in dry)),
    }


@dataclass(frozen=True)
class _Run:
    """Wall seconds, CPU seconds, peak resident memory in MiB, and output of a command."""

    seconds: float
    cpu_seconds: float
    memory_mb: float
    output: str


def _timed(command: Sequence[str], folder: Path) -> _Run:
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise UserError(f"planning failed:\n{text[-2000:]}")
    return _Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)
