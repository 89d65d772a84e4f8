"""The budget of a set in GPU hours, as jobs see it: what the set may use, and what it has used.

`results/budget.json` is written when Snakemake starts with a budget, and removed when it starts without one. It is a
file and not an argument, because Snakemake would repeat all jobs whose command line differs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.files import read_json, write_json
from z1g.jobs.records import recorded_gpu_hours

FILE = "budget.json"
SPENT = "the budget is spent"


@dataclass(frozen=True)
class Budget:
    """GPU hours that a set may use. `stages` are the folders whose jobs count, relative to the results folder.

    `left_out` are the runs for which the budget is too small, with the GPU hours that each would add.
    """

    gpu_hours: float
    stages: Sequence[str]
    left_out: Mapping[str, float] = field(default_factory=dict)

    def used(self, results: Path) -> float:
        """GPU hours that the records of the set's jobs add up to."""
        return math.fsum(recorded_gpu_hours(results / stage) for stage in self.stages)

    def write(self, results: Path) -> None:
        """Let jobs know the budget."""
        content: dict[str, Any] = {"gpu_hours": self.gpu_hours, "stages": list(self.stages)}
        write_json(results / FILE, content | {"left_out": dict(self.left_out)})


def read_budget(results: Path) -> Budget | None:
    """The budget of the set that was started last; None if it had none. Raises UserError for a damaged file."""
    file = results / FILE
    try:
        content = read_json(file)
        return Budget(float(content["gpu_hours"]), [str(stage) for stage in content["stages"]], content["left_out"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read: {error}; start `snakemake` again to write it again") from error


def forget_budget(results: Path) -> None:
    """Let jobs know that there is no budget."""
    (results / FILE).unlink(missing_ok=True)


def require_budget(folder: Path, gpus: int | None) -> None:
    """Raise UserError if a job of a stage folder may not start because its set has used its budget.

    Jobs without GPUs always may, and so may jobs of stages that are not part of the set.
    """
    budget = read_budget(folder.parent.parent) if gpus else None
    if budget is None or f"{folder.parent.name}/{folder.name}" not in budget.stages:
        return
    used = budget.used(folder.parent.parent)
    if used >= budget.gpu_hours:
        raise UserError(
            f"{SPENT}: {used:.4g} of {budget.gpu_hours:.4g} GPU hours are used; this job was not started; "
            "run the same command with a larger budget= to continue"
        )


def stage_folders(keys: Iterable[tuple[str, str]]) -> list[str]:
    """Folders of stages, relative to the results folder."""
    return [f"{stage}/{identity}" for stage, identity in keys]
