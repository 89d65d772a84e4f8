"""Runs of the DAG for the points of a search, and the values that they measured."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from z1g.config.search import Goal
from z1g.core.errors import UserError
from z1g.core.names import did_you_mean
from z1g.plan.plan import Plan, PlannedAblation
from z1g.report.collect import Results
from z1g.report.cost import stage_cost
from z1g.training.rungs import DIVERGED


@dataclass(frozen=True)
class Where:
    """How Snakemake is started: its profile, the scale, the results folder, and further `--config` options."""

    profile: str
    scale: str
    results: Path
    options: Mapping[str, str]


def train(where: Where, study: str, runs: Sequence[str]) -> int:
    """Train and measure runs of a study's ablation file. Returns Snakemake's exit code.

    Each run's folder is asked for, not tables and report, which are those of the user's own ablations. Without
    Snakemake's lock on the folder, which a killed one leaves behind; jobs that are left running hold their own locks.
    """
    config = {**where.options, "scale": where.scale, "ablations": study, "results": str(where.results)}
    words = ["--config", *(f"{key}={value}" for key, value in config.items())]
    targets = [f"{where.results}/ablations/{run}/MODEL_CARD.md" for run in runs]
    command = [sys.executable, "-m", "snakemake", "--profile", where.profile, "--nolock", *words, "--", *targets]
    return subprocess.run(command, check=False).returncode


def require_metric(plan: Plan, goal: Goal) -> None:
    """Raise UserError if runs do not measure the metric of the goal, before anything is trained for it."""
    for planned in plan.ablations.values():
        options = planned.ablation.experiment.metrics
        names = [options.protocol.column(name) for name in options.metrics]
        if goal.metric not in names:
            raise UserError(f"search.objective.metric: {goal.metric} is not measured{did_you_mean(goal.metric, names)}")


def value(results: Path, runs: Sequence[PlannedAblation], goal: Goal) -> float | None:
    """The mean of a metric over objects and runs; None unless every run has been measured.

    Raises UserError if the metric, the source or the split was not measured.
    """
    tree, values = Results(results), []
    for run in runs:
        folder = tree.folder(*run.stages["metrics"].key)
        if not (folder / "metrics.jsonl").is_file():
            return None
        measured = tree.measurements(run.stages["metrics"].id)
        if goal.metric not in measured.metrics:
            raise UserError(f"{folder} has no metric {goal.metric}; it has {', '.join(measured.metrics)}")
        if measured.metrics[goal.metric].scope == "set":
            found = measured.set_value(goal.metric, goal.split, goal.source)
        else:
            by_object = measured.object_values(goal.metric, goal.split, goal.source)
            found = math.fsum(by_object.values()) / len(by_object) if by_object else None
        if found is None:
            raise UserError(f"{folder} has no value of {goal.metric} for {goal.source} on {goal.split} objects")
        values.append(found)
    return math.fsum(values) / len(values)


def diverged(results: Path, runs: Sequence[PlannedAblation]) -> bool:
    """Whether the training of one of the runs diverged."""
    folders = [results / stage.name / stage.id for run in runs for stage in run.stages.values()]
    return any((folder / DIVERGED).is_file() for folder in folders)


def gpu_hours(plan: Plan) -> float:
    """GPU hours of all jobs of a plan's stages so far."""
    tree = Results(plan.results)
    costs = [stage_cost(tree.jobs(*key)) for key in plan.stages]
    return math.fsum(cost.gpu_seconds or 0.0 for cost in costs if cost is not None) / 3600
