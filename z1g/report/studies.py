"""Runs of a study as a table: a row per run, with its point, its replicate and its mean metrics.

A study is what one ablation file expands into. Its arms are points of a sweep; runs of one arm are replicates that
differ in random seed or fold only.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

from z1g.core.progress import track
from z1g.report.collect import Ablation, Measurements, MetricInfo, Results
from z1g.report.left_out import left_out_hours

LOG_RATIO = 20
"""Smallest ratio of the largest to the smallest of a factor's values on a logarithmic axis."""


@dataclass(frozen=True)
class Run:
    """One run. `values` has the metrics' means over the objects of the study's split, empty before it is measured.

    `point` maps key paths to values, `x` is the value that learning curves are drawn against, and `pruned` is what
    the pruning recorded, or None.
    """

    name: str
    arm: str
    point: dict[str, Any]
    values: dict[str, float]
    seed: int | None = None
    fold: int | None = None
    pruned: dict[str, Any] | None = None
    x: float | None = None
    group: str = ""
    """Label of the learning curve that the run belongs to."""


@dataclass(frozen=True)
class Factor:
    """An option that the study varies, with its values in order as labels, and as numbers if all of them are."""

    key: str
    levels: tuple[str, ...]
    numbers: tuple[float, ...] | None

    @cached_property
    def logarithmic(self) -> bool:
        """Whether the values span a wide range whose middle, on a logarithmic axis, is nearer to their median."""
        if self.numbers is None or self.numbers[0] <= 0 or self.numbers[-1] < LOG_RATIO * self.numbers[0]:
            return False
        low, middle, high = self.numbers[0], median(self.numbers), self.numbers[-1]
        linear = (middle - low) / (high - low)
        logarithmic = math.log(middle / low) / math.log(high / low)
        return abs(logarithmic - 0.5) < abs(linear - 0.5)

    def position(self, value: float) -> float:
        """Where a number is between the smallest, 0, and the largest, 1, on the factor's axis."""
        assert self.numbers is not None
        low, high = self.numbers[0], self.numbers[-1]
        if self.logarithmic:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)


@dataclass(frozen=True)
class Study:
    """Runs of one file, or of one set with an `x`. Metrics are means over the objects of `split`."""

    name: str
    runs: list[Run]
    metrics: dict[str, MetricInfo] = field(default_factory=dict)
    split: str = "test"
    x_label: str = ""
    left_out: dict[str, float] = field(default_factory=dict)
    """Runs that the budget left out, with the GPU hours that each would have added."""

    @cached_property
    def arms(self) -> dict[str, list[Run]]:
        """Runs by arm, in the order of the runs."""
        arms: dict[str, list[Run]] = {}
        for run in self.runs:
            arms.setdefault(run.arm, []).append(run)
        return arms

    @cached_property
    def factors(self) -> list[Factor]:
        """Options with at least two values. A run whose point lacks an option has the value `–`."""
        keys = dict.fromkeys(key for run in self.runs for key in run.point)
        factors = [_factor(key, [run.point.get(key, ...) for run in self.runs]) for key in keys]
        return [factor for factor in factors if len(factor.levels) > 1]

    def complete(self, metric: str) -> list[Run]:
        """Runs that were not pruned and have a value of the metric."""
        return [run for run in self.runs if run.pruned is None and metric in run.values]

    def ranked_arms(self) -> list[str]:
        """Arms from best to worst by the mean of the first metric that has a direction; unmeasured ones last."""
        metric = next((name for name, info in self.metrics.items() if info.higher_is_better is not None), None)
        if metric is None:
            return list(self.arms)
        sign = -1 if self.metrics[metric].higher_is_better else 1

        def key(arm: str) -> float:
            values = [run.values[metric] for run in self.arms[arm] if run.pruned is None and metric in run.values]
            return sign * math.fsum(values) / len(values) if values else math.inf

        return sorted(self.arms, key=key)


def read_studies(tree: Results, ablations: Sequence[Ablation]) -> list[Study]:
    """Studies with at least two arms among some ablations, in their order."""
    plans = {ablation.name: tree.plan(ablation.name) for ablation in ablations}
    groups: dict[str, list[Ablation]] = {}
    for ablation in ablations:
        groups.setdefault(str(plans[ablation.name].get("study") or ablation.name), []).append(ablation)
    studies = []
    for name, members in groups.items():
        if len({plans[ablation.name].get("arm") or ablation.name for ablation in members}) > 1:
            studies.append(study_of(tree, name, members))
    return studies


def study_of(tree: Results, name: str, ablations: Sequence[Ablation]) -> Study:
    """A study of the given ablations. Files are read once and rows are not kept, so that many runs fit in memory."""
    measured: dict[str, _Means] = {}
    for ablation in track(ablations, f"reading {name}", len(ablations)):
        identity = ablation.stages.get("metrics")
        if identity and (tree.folder("metrics", identity) / "metrics.jsonl").is_file():
            measured[ablation.name] = _means(tree.measurements_in(tree.folder("metrics", identity)))
    split = "test" if any(means.values.get("test") for means in measured.values()) else "train"
    infos = {metric: info for means in measured.values() for metric, info in means.metrics.items()}
    runs = [_run(tree.plan(ablation.name), ablation.name, measured.get(ablation.name), split) for ablation in ablations]
    shown = {metric: info for metric, info in infos.items() if any(metric in run.values for run in runs)}
    return Study(name, runs, shown, split, left_out=left_out_hours(tree, ablations, name))


def label(value: Any) -> str:
    """A value of an option as text: `–` if missing, one text for 2 and 2.0, a slot without options as its kind."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, dict) and list(value) == ["kind"]:
        return str(value["kind"])
    return "–" if value is ... else value if isinstance(value, str) else json.dumps(value)


def runs_csv(study: Study) -> str:
    """A line per run: its name, arm, replicate, values of all factors, whether it was pruned, and its metrics.

    Runs that the budget left out follow, of which only the name and the GPU hours that they would add are known.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    keys = [factor.key for factor in study.factors]
    writer.writerow(("run", "arm", "seed", "fold", *keys, "pruned", "left_out_gpu_hours", *study.metrics))
    for run in study.runs:
        point = [label(run.point.get(key, ...)) for key in keys]
        replicate = ["" if number is None else number for number in (run.seed, run.fold)]
        metrics = [repr(run.values[metric]) if metric in run.values else "" for metric in study.metrics]
        writer.writerow((run.name, run.arm, *replicate, *point, "no" if run.pruned is None else "yes", "", *metrics))
    for name, hours in study.left_out.items():
        writer.writerow((name, "", "", "", *[""] * len(keys), "no", repr(hours), *[""] * len(study.metrics)))
    return stream.getvalue()


@dataclass(frozen=True)
class _Means:
    """Means of the samples by split and metric."""

    metrics: dict[str, MetricInfo]
    values: dict[str, dict[str, float]]


def _means(measured: Measurements) -> _Means:
    values: dict[str, dict[str, float]] = {"test": {}, "train": {}}
    for split, found in values.items():
        for metric, info in measured.metrics.items():
            if info.scope == "set":
                value = measured.set_value(metric, split, "sampled")
            else:
                objects = measured.object_values(metric, split, "sampled").values()
                value = math.fsum(objects) / len(objects) if objects else None
            if value is not None and math.isfinite(value):
                found[metric] = value
    return _Means(measured.metrics, values)


def _run(plan: dict[str, Any], name: str, means: _Means | None, split: str) -> Run:
    return Run(
        name=name,
        arm=str(plan.get("arm") or name),
        point=plan.get("point") or {},
        values=means.values[split] if means else {},
        seed=plan.get("seed"),
        fold=plan.get("fold"),
        pruned=plan.get("pruned"),
    )


def _factor(key: str, values: list[Any]) -> Factor:
    distinct = {label(value): value for value in values}
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in distinct.values()):
        levels = sorted(distinct, key=lambda text: distinct[text])
        return Factor(key, tuple(levels), tuple(float(distinct[text]) for text in levels))
    return Factor(key, tuple(distinct), None)
