"""Arms: the runs of one method that differ in their training seed, and their values as a table of seeds and objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from z1g.report.collect import Ablation, Measurements
from z1g.report.statistics import Array

TRAINING_FREE = frozenset({"fitted", "nearest"})
"""Sources without a trained network: they have no training noise."""


@dataclass(frozen=True)
class Replicate:
    """What was measured for one seed: one run, or the runs of all folds, which have different objects."""

    seed: int | None
    measured: tuple[Measurements, ...]

    def object_values(self, metric: str, split: str, source: str) -> dict[str, float]:
        """Values of the metric by object."""
        values: dict[str, float] = {}
        for measured in self.measured:
            if metric in measured.metrics:
                values |= measured.object_values(metric, split, source)
        return values

    def set_value(self, metric: str, split: str, source: str) -> float | None:
        """Mean of the metric's values of the whole set over folds, or None."""
        values = [measured.set_value(metric, split, source) for measured in self.measured]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Replicates:
    """Replicates of one method. The seed changes the stages `replicated`; `pruned` has the runs left out, and why."""

    members: tuple[Replicate, ...]
    replicated: tuple[str, ...] = ()
    pruned: Mapping[str, str] = field(default_factory=dict)

    def table(self, metric: str, split: str, source: str) -> Table:
        """Values of the metric by seed and object, for the objects that every replicate has."""
        members = self._trained(source)
        by_seed = [values for member in members if (values := member.object_values(metric, split, source))]
        return Table.of(by_seed, trained=source not in TRAINING_FREE)

    def set_values(self, metric: str, split: str, source: str) -> list[float]:
        """Values of a metric of sets by seed."""
        values = [member.set_value(metric, split, source) for member in self._trained(source)]
        return [value for value in values if value is not None]

    def _trained(self, source: str) -> tuple[Replicate, ...]:
        """Replicates that can differ: a source without training has the same values whatever the seed."""
        return self.members[:1] if source in TRAINING_FREE else self.members


@dataclass(frozen=True)
class Table:
    """`values` [S, N] by seed and object, number of objects `left_out`, and whether a network was trained."""

    values: Array
    objects: tuple[str, ...]
    left_out: int
    trained: bool

    @classmethod
    def of(cls, by_seed: Sequence[Mapping[str, float]], trained: bool = True) -> Table:
        """Keep the objects that every seed has. Seeds with equal values count once: they are the same run."""
        distinct: list[Mapping[str, float]] = []
        for values in by_seed:
            if values not in distinct:
                distinct.append(values)
        common = set.intersection(*(set(values) for values in distinct)) if distinct else set()
        names = sorted(common)
        data = [[values[name] for name in names] for values in distinct]
        left_out = len(set().union(*distinct)) - len(common)
        return cls(np.array(data, np.float64).reshape(len(distinct), len(names)), tuple(names), left_out, trained)

    def only(self, objects: Iterable[str]) -> Table:
        """The same values for some of the objects."""
        kept = set(objects)
        columns = [i for i, name in enumerate(self.objects) if name in kept]
        names = tuple(self.objects[i] for i in columns)
        return Table(self.values[:, columns], names, self.left_out + len(self.objects) - len(names), self.trained)


@dataclass(frozen=True)
class Arm:
    """A method: the runs of one arm that were not pruned, and those that were."""

    name: str
    runs: tuple[Ablation, ...]
    pruned: tuple[Ablation, ...] = ()

    def replicates(self, measured: Mapping[str, Measurements]) -> Replicates:
        """Group the runs by seed. `measured` has the measurements by name of the run; unmeasured runs are left out."""
        by_seed: dict[int | None, list[Measurements]] = {}
        for run in self.runs:
            if run.name in measured:
                by_seed.setdefault(run.seed, []).append(measured[run.name])
        replicated = tuple(dict.fromkeys(stage for run in self.runs for stage in run.replicated))
        members = tuple(Replicate(seed, tuple(parts)) for seed, parts in by_seed.items())
        return Replicates(members, replicated, {run.name: pruned_text(run) for run in self.pruned})


def arms(ablations: Iterable[Ablation]) -> list[Arm]:
    """Group runs by arm, in the order of their first run. An old plan without `arm` is an arm of its own."""
    groups: dict[str, list[Ablation]] = {}
    for ablation in ablations:
        groups.setdefault(ablation.arm or ablation.name, []).append(ablation)
    return [
        Arm(name, tuple(run for run in runs if not run.pruned), tuple(run for run in runs if run.pruned))
        for name, runs in groups.items()
    ]


def pruned_text(run: Ablation) -> str:
    """Why a run was pruned, in words."""
    about = run.pruned or {}
    share = about.get("rung")
    when = f"after {share * 100:.3g} % of its training" if isinstance(share, int | float) else "early"
    value, by = about.get("value"), about.get("by")
    reason = f" at {by} {value:.4g}" if isinstance(value, int | float) and by else ""
    return f"stopped {when}{reason}; its values are in no mean"
