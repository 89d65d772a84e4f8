"""Starts the processes of each row, one row after another, and summarizes what they measured."""

from __future__ import annotations

import json
import logging
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import z1g
from z1g.bench.machine import MIB, guarded
from z1g.bench.scaling.job import CHUNKED, STAGES, TRAINED, Job, default_batch
from z1g.bench.scaling.rank import LEASES
from z1g.core.errors import UserError
from z1g.core.files import read_json, write_json
from z1g.core.progress import Meter
from z1g.jobs.launch import run_ranks
from z1g.jobs.leases import gpu_pool, leased

CPU = torch.device("cpu")
"""The parent uses no GPU itself: the ranks have them."""
GIGA = 1e9
log = logging.getLogger("z1g")


@dataclass(frozen=True)
class Row:
    """One figure: a job on each of `gpus` processes.

    mode: one (the reference), weak (the same batch for each GPU), strong (the batch of one GPU divided among all) or
    chunks (a chunk for each GPU).
    """

    job: Job
    gpus: int
    mode: str


@dataclass(frozen=True)
class Request:
    """What to measure. `batch` overrides the objects of a GPU; `base` is the YAML file of a scale instead of `size`."""

    gpus: Sequence[int]
    stages: Sequence[str]
    size: str = "full"
    base: Path | None = None
    batch: int | None = None
    steps: int = 6
    sampling_steps: int = 16
    repeats: int = 3
    modes: Sequence[str] = ("weak", "strong")
    seconds: float = 540.0
    out: Path | None = None

    def rows(self) -> list[Row]:
        """The rows, stage by stage; one GPU comes first, since it is the reference of the others."""
        rows = []
        for stage in self.stages:
            base = None if self.base is None else str(self.base.resolve())
            batch = self.batch or default_batch(stage, self.size, base)
            steps = self.sampling_steps if stage == "infer" else self.steps
            job = Job(stage, self.size, base, batch, steps, self.repeats)
            rows.append(Row(job, 1, "one"))
            modes = ["chunks"] if stage in CHUNKED else self.modes
            rows += [Row(job, gpus, mode) for mode in modes for gpus in sorted(set(self.gpus)) if gpus > 1]
        return rows


def measure(request: Request) -> dict[str, Any]:
    """Samples/s of training and objects/s of chunks on several GPUs of this machine, or as many processes on its CPU.

    A row is measured by processes of its own, which begin each timed window together; a window's time is that of the
    slowest. After every row, all figures so far are written to `request.out`. Rows that fail or that `request.seconds`
    leave no time for have an error instead of figures. Raises UserError for an unknown stage or too few GPUs.
    """
    unknown = set(request.stages) - set(STAGES)
    if unknown:
        raise UserError(f"--stages: unknown {', '.join(sorted(unknown))}; available are {', '.join(STAGES)}")
    pool, began = gpu_pool(), time.perf_counter()
    if pool and max(request.gpus) > len(pool):
        raise UserError(f"--gpus {max(request.gpus)}: this machine shares {len(pool)} GPUs")
    figures: dict[str, Any] = {
        "size": request.size if request.base is None else request.base.name,
        "on": "gpu" if pool else "cpu",
        "cores": os.cpu_count(),
        "command": " ".join(["z1g", *sys.argv[1:]]),
        "rows": [],
    }
    threads = max((os.cpu_count() or 1) // max(request.gpus), 1)
    rows, ones = request.rows(), dict[str, dict[str, Any]]()
    with Meter("bench scaling", len(rows)) as meter:
        for row in rows:
            name = f"{row.job.stage} {row.mode} {row.gpus}"
            done = guarded(name, partial(_run, row, threads, bool(pool)), CPU, began + request.seconds)
            figures |= {name: done.pop(name) for name in ("device", "versions") if name in done}
            if row.mode == "one":
                ones[row.job.stage] = done
            figures["rows"].append(done | _efficiency(done, ones[row.job.stage]))
            figures["wall_s"] = round(time.perf_counter() - began, 1)
            if request.out is not None:
                write_json(request.out, figures)
            meter.advance()
    return figures


def _run(row: Row, threads: int, on_gpus: bool) -> dict[str, Any]:
    job = row.job
    if row.mode == "strong":
        if job.batch % row.gpus:
            raise UserError(f"a batch of {job.batch} does not divide over {row.gpus} GPUs")
        job = replace(job, batch=job.batch // row.gpus)
    with tempfile.TemporaryDirectory(prefix="z1g-bench-") as folder:
        command = [sys.executable, "-m", "z1g.bench.scaling.rank", json.dumps(asdict(job)), folder]
        with _environment(row, threads, on_gpus) as (environment, inherited):
            exit_code = run_ranks(command, row.gpus, environment, inherited)
        files = [Path(folder) / f"rank{rank}.json" for rank in range(row.gpus)]
        ranks = [read_json(file) for file in files if file.is_file()]
    if exit_code == -signal.SIGTERM:
        # It was passed on to the ranks; what was measured before is in the file.
        sys.exit(128 + signal.SIGTERM)
    errors = [rank["error"] for rank in ranks if "error" in rank]
    if exit_code or errors:
        raise RuntimeError(errors[0] if errors else f"a process ended with exit code {exit_code}; see above")
    return summary(row, job.batch, ranks)


@contextmanager
def _environment(row: Row, threads: int, on_gpus: bool) -> Iterator[tuple[Mapping[str, str], Sequence[int]]]:
    """Environment of the ranks, and leases that they inherit. Processes of chunks lease a GPU each, as jobs do."""
    paths = [str(Path(z1g.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    inherited = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK")}
    shared = {
        **inherited,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
    }
    if not on_gpus:
        yield {**shared, "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}, []
    elif row.job.stage in TRAINED:
        with leased(row.gpus) as (names, descriptors):
            yield {**shared, "CUDA_VISIBLE_DEVICES": ",".join(names)}, descriptors
    else:
        yield {**shared, LEASES: "1"}, []


def summary(row: Row, batch: int, ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of a row from those of its ranks; `batch` is the number of objects of each rank.

    step_s: of a training step, or of a chunk. Each figure that was measured several times is {min, median, max}.
    rank_step_s: of each rank by itself, without averages of gradients, which tells a slow GPU from a slow machine.
    """
    slowest = {
        kind: [max(windows) for windows in zip(*(rank["seconds"][kind] for rank in ranks), strict=True)]
        for kind in ranks[0]["seconds"]
    }
    first = ranks[0]
    figures = {
        "stage": row.job.stage,
        "mode": row.mode,
        "gpus": row.gpus,
        "batch_a_gpu": batch,
        "batch": batch * row.gpus,
        "step_s": _spread(slowest["step"]),
        "samples_per_s": _spread([batch * row.gpus / seconds for seconds in slowest["step"]]),
        "rank_step_s": [_own(rank["seconds"]) for rank in ranks],
        "warm_up_s": max(rank["warm_up_s"] for rank in ranks),
        "memory_mib": [rank["memory_mib"] for rank in ranks],
        "device": first["device"],
        "versions": first["versions"],
    }
    if row.job.stage in TRAINED:
        figures |= {"replayed": all(rank["replayed"] for rank in ranks), "parameters_m": first["parameters"] / 1e6}
        figures |= {"optimizer_mib": round(first["optimizer_bytes"] / MIB, 3)}
        figures |= {"gradients_mib": round(first["gradient_bytes"] / MIB, 3)}
    if "own" in slowest:
        figures |= {"backend": first["backend"], **_averaging(slowest, first["gradient_bytes"], row.gpus)}
    return figures


def _own(seconds: Mapping[str, Sequence[float]]) -> float:
    return round(statistics.median(seconds.get("own", seconds["step"])), 5)


def _averaging(seconds: Mapping[str, Sequence[float]], sent: int, gpus: int) -> dict[str, Any]:
    """What averages of gradients cost: alone, and in a step.

    average_hidden: the share of averages that steps hide behind other work, from the medians of what averages add to a
    step and of averages alone.
    link_gb_per_s: bytes that a GPU sends in a ring, 2·(n−1)/n of the gradients', over the time of all-reduces alone.
    """
    added = [whole - own for whole, own in zip(seconds["step"], seconds["own"], strict=True)]
    hidden = 1 - statistics.median(added) / statistics.median(seconds["average"])
    moved = 2 * (gpus - 1) / gpus * sent
    return {
        "step_without_average_s": _spread(seconds["own"]),
        "average_s": _spread(seconds["average"]),
        "transfer_s": _spread(seconds["transfer"]),
        "average_adds_s": _spread(added),
        "average_hidden": round(hidden, 3),
        "sent_mib_a_step": round(moved / MIB, 3),
        "link_gb_per_s": _spread([moved / GIGA / alone for alone in seconds["transfer"]]),
    }


def _efficiency(row: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    """Samples/s of a row over those of one GPU times the number of GPUs; min and max combine the extremes of both."""
    if "samples_per_s" not in row or "samples_per_s" not in one or row["gpus"] == 1:
        return {}
    many, single, n = row["samples_per_s"], one["samples_per_s"], row["gpus"]
    opposite = {"min": "max", "median": "median", "max": "min"}
    return {"efficiency": {name: round(many[name] / single[other] / n, 4) for name, other in opposite.items()}}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "min": round(min(values), 5),
        "median": round(statistics.median(values), 5),
        "max": round(max(values), 5),
    }
