"""The state of every stage of a set, and what the set has cost and will cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from z1g.core.errors import UserError
from z1g.jobs.budget import Budget, read_budget, stage_folders
from z1g.plan.status.estimates import Durations, seconds_to_the_end
from z1g.plan.status.evidence import Evidence
from z1g.plan.status.jobs import JobStatus, State, job_status
from z1g.plan.status.nodes import Key, StageNode

FIRST: tuple[State, ...] = ("running", "failed", "queued", "stopped", "waiting", "pruned")
"""Of the states of its jobs, the first one in this order is that of the stage; a stage is done if all its jobs are."""


@dataclass(frozen=True)
class StageStatus:
    """A stage and its jobs. `gpu_hours` has been used; `gpu_hours_left` is None if nothing is known about it.

    `left_s`: seconds until its last running job ends, None if none runs or has a rate. `blocked`: the failed or pruned
    stages upstream for which it waits.
    """

    node: StageNode
    jobs: tuple[JobStatus, ...]
    gpu_hours_left: float | None
    left_s: float | None
    blocked: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """The state that says most about the stage."""
        states = {job.state for job in self.jobs}
        return next((state for state in FIRST if state in states), "done")

    @property
    def counts(self) -> Counter[str]:
        """Number of jobs by state."""
        return Counter(job.state for job in self.jobs)

    @property
    def gpu_hours(self) -> float:
        """GPU hours of all attempts at all jobs."""
        return math.fsum(job.gpu_hours for job in self.jobs)

    @property
    def running(self) -> list[JobStatus]:
        """Jobs that run."""
        return [job for job in self.jobs if job.state == "running"]


@dataclass(frozen=True)
class Status:
    """All stages of a set at the time `now`, s since 1970.

    `end` is when the last job would end if as many jobs as now went on side by side, None if that cannot be said.
    `budget` is that of the set, None if it has none.
    """

    now: float
    stages: tuple[StageStatus, ...]
    snakemake: str
    end: float | None
    budget: Budget | None = None

    @property
    def counts(self) -> Counter[str]:
        """Number of stages by state."""
        return Counter(stage.state for stage in self.stages)

    @property
    def gpu_hours(self) -> float:
        """GPU hours used."""
        return math.fsum(stage.gpu_hours for stage in self.stages)

    @property
    def gpu_hours_left(self) -> float:
        """GPU hours left of those stages about which something is known."""
        return math.fsum(stage.gpu_hours_left or 0.0 for stage in self.stages)

    @property
    def unknown(self) -> list[str]:
        """Stages whose hours nothing is known about, as `name id`."""
        return [" ".join(stage.node.key) for stage in self.stages if stage.gpu_hours_left is None]

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return all(stage.state in ("done", "pruned") for stage in self.stages)


def status(results: Path, nodes: Sequence[StageNode], seen: Evidence) -> Status:
    """The status of all stages of a set, upstream stages first."""
    jobs: dict[Key, tuple[StageNode, tuple[JobStatus, ...]]] = {
        node.key: (node, tuple(job_status(results, node, chunk, seen) for chunk in range(node.n_chunks)))
        for node in nodes
    }
    durations, stages = Durations(jobs), list[StageStatus]()
    left: dict[Key, list[float | None]] = {}
    found: dict[Key, State] = {}
    for key, (node, own) in jobs.items():
        left[key] = durations.left(key)
        ends = [job.left_s for job in own if job.left_s is not None]
        stage = StageStatus(node, own, _hours(node, left[key]), max(ends, default=None), _blocked(node, found))
        found[key] = stage.state
        stages.append(stage)
    return Status(seen.now, tuple(stages), seen.about_snakemake(), _end(stages, left, seen), _budget(results, nodes))


def _budget(results: Path, nodes: Sequence[StageNode]) -> Budget | None:
    """The budget that these stages share, if they are of the set that was started last."""
    try:
        budget = read_budget(results)
    except UserError:
        return None
    own = set(stage_folders(node.key for node in nodes))
    return budget if budget is not None and own & set(budget.stages) else None


def _hours(node: StageNode, left: Sequence[float | None]) -> float | None:
    """GPU hours of jobs with these seconds left."""
    if not node.gpus or not left:
        return 0.0
    known = [seconds for seconds in left if seconds is not None]
    return math.fsum(known) * node.gpus / 3600 if len(known) == len(left) else None


def _blocked(node: StageNode, found: dict[Key, State]) -> tuple[str, ...]:
    return tuple(
        name for name, identity in node.upstream.items() if found.get((name, identity)) in ("failed", "pruned")
    )


def _end(stages: Sequence[StageStatus], left: dict[Key, list[float | None]], seen: Evidence) -> float | None:
    """When the last job ends, if anything runs and all durations are known. Blocked stages do not count."""
    at_once = sum(len(stage.running) for stage in stages)
    counted = {stage.node.key: left[stage.node.key] for stage in stages if not stage.blocked}
    if not at_once or any(seconds is None for jobs in counted.values() for seconds in jobs):
        return None
    known = {key: [seconds for seconds in jobs if seconds is not None] for key, jobs in counted.items()}
    upstream = {stage.node.key: list(stage.node.upstream.items()) for stage in stages}
    return seen.now + seconds_to_the_end(known, upstream, at_once)
