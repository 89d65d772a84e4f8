"""How much is left to do: hours of the jobs that have not ended, from what the others took or from measured figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from statistics import fmean

from z1g.core.errors import UserError
from z1g.plan.cost import HOUR_S, Cost, costs
from z1g.plan.status.jobs import JobStatus
from z1g.plan.status.nodes import Key, Source, StageNode

ENDED = ("done", "pruned")


def _sheet(source: Source) -> dict[str, Cost]:
    """The cost sheet of a run by stage; empty if there are no figures for its configuration."""
    given = source()
    try:
        return {} if given is None else {row.stage: row for row in costs(*given)}
    except UserError:
        return {}


class Durations:
    """Seconds of the jobs of a set that have not ended.

    A job's seconds are the mean of its stage's finished jobs, else those of the cost sheet (one H100), else the mean of
    finished jobs of stages of the same name. None is known of a stage that nothing says anything about.
    """

    def __init__(self, stages: Mapping[Key, tuple[StageNode, Sequence[JobStatus]]]) -> None:
        self._stages = stages
        self._sheet = cache(_sheet)
        self._by_name: dict[str, list[float]] = {}
        for node, jobs in stages.values():
            self._by_name.setdefault(node.stage, []).extend(_seconds(jobs))

    def of_a_job(self, key: Key) -> float | None:
        """Seconds of a whole job of a stage."""
        node, jobs = self._stages[key]
        if own := _seconds(jobs):
            return fmean(own)
        row = self._sheet(node.experiment).get(node.stage)
        if row is not None:
            if node.gpus and row.gpu_hours is not None:
                return row.gpu_hours * HOUR_S / node.n_chunks / node.gpus
            if not row.gpu_hours and row.cpu_hours is not None:
                return row.cpu_hours * HOUR_S / node.n_chunks / node.threads
        others = self._by_name[node.stage]
        return fmean(others) if others else None

    def left(self, key: Key) -> list[float | None]:
        """Seconds left of each job of a stage that has not ended; running jobs by their own rate."""
        _, jobs = self._stages[key]
        whole = self.of_a_job(key) if any(job.state not in ENDED for job in jobs) else None
        return [_left(job, whole) for job in jobs if job.state not in ENDED]


def _left(job: JobStatus, whole: float | None) -> float | None:
    if job.left_s is not None:
        return job.left_s
    if job.state == "running" and job.beat is not None and whole is not None:
        return max(whole - job.beat.seconds, 0.0)
    return whole


def _seconds(jobs: Iterable[JobStatus]) -> list[float]:
    return [job.seconds for job in jobs if job.state == "done" and job.seconds is not None]


def seconds_to_the_end(
    left: Mapping[Key, Sequence[float]], upstream: Mapping[Key, Iterable[Key]], at_once: int
) -> float:
    """Seconds until the last job ends, with `at_once` jobs side by side.

    The larger of two lower bounds: all work divided by the number of places, and the longest chain of stages, each as
    long as its longest job. `left` has the seconds of the jobs that have not ended; `upstream` is in order.
    """
    chain: dict[Key, float] = {}
    for key, jobs in left.items():
        before = max((chain.get(other, 0.0) for other in upstream[key]), default=0.0)
        chain[key] = before + max(jobs, default=0.0)
    work = sum(sum(jobs) for jobs in left.values())
    return max(work / max(at_once, 1), max(chain.values(), default=0.0))
