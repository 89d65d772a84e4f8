"""Data of a study that its charts share: a table of runs and one of arms, in short columns."""

from collections.abc import Sequence
from typing import Any

from z1g.report.studies import Factor, Run, Study, label


def tables(study: Study) -> dict[str, dict[str, list[Any]]]:
    """Data that the charts of a study share: `runs` and `arms`, each with `columns` and `rows`."""
    factor_fields = [factor_field(study, factor) for factor in study.factors]
    metric_fields = [metric_field(study, metric) for metric in study.metrics]
    runs: list[list[Any]] = []
    for run in study.runs:
        point = [_value(factor, run) for factor in study.factors]
        metrics = [_rounded(run.values.get(metric)) for metric in study.metrics]
        runs.append([run.name, run.pruned is not None, *point, *metrics])
    arms: list[list[Any]] = []
    states = {
        arm: "pruned" if all(run.pruned is not None for run in members) else "complete"
        for arm, members in study.arms.items()
    }
    for arm, state in sorted(states.items(), key=lambda item: item[1], reverse=True):  # pruned ones are drawn first
        members = study.arms[arm]
        heights = [_rounded(_height(factor, members[0])) for factor in study.factors]
        arms.append([arm, state, *heights, *(_rounded(mean_of(members, metric)) for metric in study.metrics)])
    heights_fields = [f"a{i}" for i in range(len(study.factors))]
    return {
        "runs": {"columns": ["run", "pruned", *factor_fields, *metric_fields], "rows": runs},
        "arms": {"columns": ["arm", "state", *heights_fields, *metric_fields], "rows": arms},
    }


def factor_field(study: Study, factor: Factor) -> str:
    """Column of a factor's values."""
    return f"f{study.factors.index(factor)}"


def metric_field(study: Study, metric: str) -> str:
    """Column of a metric's values."""
    return f"m{list(study.metrics).index(metric)}"


def _value(factor: Factor, run: Run) -> float | str:
    text = label(run.point.get(factor.key, ...))
    return text if factor.numbers is None else factor.numbers[factor.levels.index(text)]


def _rounded(value: float | None) -> float | None:
    """Six significant digits, which a chart cannot show."""
    return None if value is None else float(f"{value:.6g}")


def mean_of(runs: Sequence[Run], metric: str) -> float | None:
    """Mean of a metric over the runs of an arm that were not pruned; None if there is none."""
    values = [run.values[metric] for run in runs if run.pruned is None and metric in run.values]
    return sum(values) / len(values) if values else None


def _height(factor: Factor, run: Run) -> float:
    """Where a run is on an axis of parallel coordinates, from 0 to 1."""
    if factor.numbers is None:
        return factor.levels.index(label(run.point.get(factor.key, ...))) / (len(factor.levels) - 1)
    return factor.position(float(run.point[factor.key]))
