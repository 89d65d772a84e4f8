"""Choice of the runs that a budget of GPU hours suffices for."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.names import counted
from z1g.jobs.budget import Budget, stage_folders
from z1g.plan.plan import Plan, ablation_record
from z1g.plan.status import Evidence, nodes_of_plan, status

Key = tuple[str, str]


@dataclass(frozen=True)
class Budgeted:
    """A plan within a budget. `planned`: GPU hours of its stages, used and to go. `unknown`: stages without figures."""

    plan: Plan
    budget: Budget
    planned: float
    unknown: tuple[str, ...]

    def sentences(self) -> list[str]:
        """What is planned and what is left out."""
        limit = self.budget.gpu_hours
        lines = [
            f"budget: {self.planned:.4g} of {limit:.4g} GPU hours are planned for "
            f"{counted(len(self.plan.ablations), 'run')}"
        ]
        lines += [
            f"left out by the budget: {run} (+{hours:.4g} GPU hours)" for run, hours in self.budget.left_out.items()
        ]
        if self.unknown:
            lines.append(
                f"not in the estimate, for want of figures: {', '.join(self.unknown)}; their jobs' hours count"
            )
        return lines


def gpu_hours_of(option: Any) -> float:
    """The value of `budget=` in GPU hours. Raises UserError unless it is a positive number."""
    try:
        hours = math.nan if isinstance(option, bool) else float(option)
    except (TypeError, ValueError):
        hours = math.nan
    if not 0 < hours < math.inf:
        raise UserError(f"budget={option}: give a positive number of GPU hours, such as budget=20")
    return hours


def within_budget(plan: Plan, gpu_hours: float) -> Budgeted:
    """The runs of a plan that a budget suffices for, those of the highest priority first, else in order.

    A stage costs the GPU hours that its jobs have used and those that they still need: a stage that several runs share
    counts once, and what is done counts as it was. A run that does not fit does not keep a cheaper one from being
    chosen. Stages about which nothing is known count what they have used. Runs that need no further GPU hours are
    always kept. Raises UserError if no run fits.
    """
    found = status(plan.results, nodes_of_plan(plan), Evidence.gather(Path.cwd(), ask=False))
    hours = {stage.node.key: stage.gpu_hours + (stage.gpu_hours_left or 0.0) for stage in found.stages}
    runs = {name: [stage.key for stage in planned.stages.values()] for name, planned in plan.ablations.items()}
    priority = {name: int(ablation_record(planned).get("priority") or 0) for name, planned in plan.ablations.items()}
    free = {stage.node.key for stage in found.stages if stage.gpu_hours_left == 0}
    kept, left_out = chosen(runs, hours, priority, gpu_hours, free)
    if not kept:
        least = min(left_out, key=lambda name: left_out[name])
        raise UserError(
            f"budget={gpu_hours:.4g}: no run fits in it; the cheapest, {least}, takes {left_out[least]:.4g} GPU hours"
        )
    part = plan.of(kept)
    unknown = tuple(
        " ".join(s.node.key) for s in found.stages if s.gpu_hours_left is None and s.node.key in part.stages
    )
    planned = math.fsum(hours[key] for key in part.stages)
    return Budgeted(part, Budget(gpu_hours, stage_folders(part.stages), left_out), planned, unknown)


def chosen(
    runs: Mapping[str, Collection[Key]],
    hours: Mapping[Key, float],
    priority: Mapping[str, int],
    limit: float,
    free: Collection[Key] = (),
) -> tuple[list[str], dict[str, float]]:
    """Names of the runs that fit, in the order of `runs`, and of the others with the hours that each would add.

    A run that adds only `free` stages fits in any case: what these took cannot be saved any more.
    """
    taken: set[Key] = set()
    kept, left_out = set[str](), dict[str, float]()
    for name in sorted(runs, key=lambda name: -priority[name]):
        together = taken | set(runs[name])
        if together - taken <= set(free) or math.fsum(hours[key] for key in together) <= limit:
            taken = together
            kept.add(name)
        else:
            left_out[name] = math.fsum(hours[key] for key in together - taken)
    return [name for name in runs if name in kept], left_out
