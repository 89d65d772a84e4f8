"""The report's sections on studies and learning curves: sentences, small tables, and data of the charts."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from z1g.core.files import write_text
from z1g.core.names import counted
from z1g.report.collect import Ablation, MetricInfo, Results
from z1g.report.importance import Effect, Importance, effects_csv, importance
from z1g.report.learning_curves import curve, read_curves
from z1g.report.slices import interval_of_mean, marginals
from z1g.report.studies import Study, read_studies, runs_csv
from z1g.report.study_charts import curve_chart, importance_chart, parallel_chart, slice_chart
from z1g.report.study_tables import tables

MAX_ARMS = 8
"""Arms of a study that have rows and images in the report's other sections, and are listed: the best ones."""


@dataclass(frozen=True)
class Chart:
    """A chart: its title, what a reader who does not see it is told, and its specification."""

    title: str
    about: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class MetricSection:
    """What a page shows of one metric of a study. `best` has (arm, mean, interval, runs) of the best arms."""

    info: MetricInfo
    sentence: str
    effects: list[Effect]
    method: str
    wide: list[Chart]
    slices: list[Chart]
    best: list[tuple[str, str, str, int]]


@dataclass(frozen=True)
class StudySection:
    """One study, or the learning curves of one set. `data` is what the charts share, as JSON."""

    name: str
    facts: str
    metrics: list[MetricSection]
    data: str
    files: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Studies:
    """All studies among the ablations of a report."""

    studies: list[Study]
    curves: list[Study]
    found: dict[str, list[Importance]]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not self.studies and not self.curves

    def of_best_arms(self, ablations: Sequence[Ablation]) -> list[Ablation]:
        """Ablations without the runs of all but the MAX_ARMS best arms of every study."""
        left_out: set[str] = set()
        for study in (*self.studies, *self.curves):
            for arm in study.ranked_arms()[MAX_ARMS:]:
                left_out |= {run.name for run in study.arms[arm]}
        return [ablation for ablation in ablations if ablation.name not in left_out]

    def representatives(self, ablations: Sequence[Ablation]) -> list[Ablation]:
        """As `of_best_arms`, with one run of each arm of a study: the first that was measured."""
        left_out: set[str] = set()
        for study in (*self.studies, *self.curves):
            for runs in study.arms.values():
                kept = next((run for run in runs if run.values), runs[0])
                left_out |= {run.name for run in runs if run is not kept}
        return [ablation for ablation in self.of_best_arms(ablations) if ablation.name not in left_out]

    def sections(self) -> list[StudySection]:
        """Contents of the page."""
        return [_study_section(study, self.found[study.name]) for study in self.studies] + [
            _curve_section(study) for study in self.curves
        ]

    def write(self, folder: Path) -> None:
        """Write `<study>.csv` with all runs and `<study>.effects.csv` with all effects into a folder."""
        for study in self.studies:
            write_text(folder / f"{study.name}.csv", runs_csv(study))
            write_text(folder / f"{study.name}.effects.csv", effects_csv(study, self.found[study.name]))


def studies_of(tree: Results, ablations: Sequence[Ablation]) -> Studies:
    """Read all studies and compute what matters in each."""
    studies = read_studies(tree, ablations)
    found = {study.name: [importance(study, metric) for metric in study.metrics] for study in studies}
    return Studies(studies, read_curves(tree, ablations), found)


def _study_section(study: Study, found: list[Importance]) -> StudySection:
    data: list[dict[str, Any]] = []
    metrics = [_metric_section(study, item, data) for item in found]
    files = [f"studies/{study.name}.csv", f"studies/{study.name}.effects.csv"]
    return StudySection(study.name, _facts(study), metrics, _json(data, tables(study)), files)


def _metric_section(study: Study, found: Importance, data: list[dict[str, Any]]) -> MetricSection:
    info, runs = study.metrics[found.metric], study.complete(found.metric)
    wide, slices = [], []
    if found.effects:
        wide.append(Chart("Shares of the variance", found.sentence, importance_chart(found)))
    for factor in study.factors if runs else []:
        means = marginals(factor, runs, found.metric)
        about = f"{info.label} against {factor.key}: " + ", ".join(f"{m.label}: {m.mean:.4g}" for m in means)
        slices.append(Chart(factor.key, about, slice_chart(study, factor, means, found.metric)))
    if study.factors and runs:
        about = f"A line for each of {counted(len(study.arms), 'arm')} through its options to its mean {info.label}."
        wide.append(Chart("Arms in parallel coordinates", about, parallel_chart(study, found.metric)))
    data += [chart.spec for chart in (*wide, *slices)]
    return MetricSection(info, found.sentence, found.effects, found.method, wide, slices, _best(study, found.metric))


def _curve_section(study: Study) -> StudySection:
    metrics, data = [], []
    for metric, info in study.metrics.items():
        points = curve(study.runs, metric)
        about = "; ".join(f"{p.group} at {p.x:g}: {p.mean:.4g}".lstrip() for p in points)
        if points:
            chart = Chart(f"{info.label} by {study.x_label}", about, curve_chart(points, study, info.heading))
            data.append(chart.spec)
            metrics.append(MetricSection(info, "", [], "", [chart], [], []))
    groups = len({run.group for run in study.runs})
    facts = f"{counted(groups, 'curve')} of {counted(len(study.runs), 'run')} against {study.x_label}."
    return StudySection(f"{study.name}: learning curves by {study.x_label}", facts, metrics, _json(data, {}))


def _facts(study: Study) -> str:
    measured = sum(bool(run.values) for run in study.runs)
    pruned = sum(run.pruned is not None for run in study.runs)
    options = (
        ", ".join(f"{factor.key} ({counted(len(factor.levels), 'value')})" for factor in study.factors) or "no option"
    )
    parts = [f"{counted(len(study.arms), 'arm')} in {counted(len(study.runs), 'run')}", f"varied: {options}"]
    parts += [f"{pruned} pruned, which no figure of a metric includes"] if pruned else []
    hours = math.fsum(study.left_out.values())
    parts += (
        [f"{counted(len(study.left_out), 'run')} left out by the budget (+{hours:.4g} GPU hours)"]
        if study.left_out
        else []
    )
    parts += [f"{len(study.runs) - measured} not measured"] if measured < len(study.runs) else []
    return f"{'; '.join(parts)}. Metrics are means over the {'test' if study.split == 'test' else 'training'} objects."


def _best(study: Study, metric: str) -> list[tuple[str, str, str, int]]:
    """The best arms by a metric, or none if it has no direction."""
    better = study.metrics[metric].higher_is_better
    if better is None:
        return []
    arms = {arm: [r.values[metric] for r in study.complete(metric) if r.arm == arm] for arm in study.arms}
    means = {arm: sum(values) / len(values) for arm, values in arms.items() if values}
    rows = []
    for arm in sorted(means, key=lambda name: -means[name] if better else means[name])[:MAX_ARMS]:
        interval = interval_of_mean(arms[arm])
        text = f"{interval[1]:#.5g} to {interval[2]:#.5g}" if interval else "one run"
        rows.append((arm, f"{means[arm]:#.5g}", text, len(arms[arm])))
    return rows


def _json(charts: list[dict[str, Any]], shared: dict[str, Any]) -> str:
    """JSON for a script element: no `<` ends the element."""
    text = json.dumps({"charts": charts, "tables": shared}, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
