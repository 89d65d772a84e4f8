"""Files of a search: its points as an ablation file, its best point as another one, and the table of its trials."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from z1g.config.resolve import merge
from z1g.config.search import Goal, SearchFile
from z1g.core.names import counted
from z1g.report.tables import markdown_row, markdown_text


@dataclass(frozen=True)
class Trial:
    """One row of the table. `state` is waiting, measured or diverged; `runs` are the runs of the point."""

    number: int
    point: Mapping[str, Any]
    value: float | None
    state: str
    runs: Sequence[str]


def points_text(spec: SearchFile, points: Sequence[Mapping[str, Any]]) -> str:
    """An ablation file with the points of a search; equal points count once."""
    distinct = {json.dumps(dict(point), sort_keys=True): dict(point) for point in points}
    return _yaml({**spec.values, "sweep": {"list": list(distinct.values())}})


def best_text(spec: SearchFile, trial: Trial, n_trials: int) -> str:
    """An ablation file with the values of a trial, from which others can inherit."""
    goal = spec.search.objective
    values = dict(spec.values)
    description = (
        f"Best of {counted(n_trials, 'trial')} of {spec.name}: {goal.metric} {trial.value:.4g} "
        f"({goal.source}, {goal.split})"
    )
    for path, value in trial.point.items():
        for part in reversed(path.split(".")):
            value = {part: value}
        values = merge(values, value)
    return _yaml({**values, "description": description})


def csv_table(trials: Sequence[Trial], goal: Goal) -> str:
    """One line per trial, with full precision."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    paths = list(trials[0].point) if trials else []
    writer.writerow(("trial", "state", goal.metric, "runs", *paths))
    for trial in trials:
        value = "" if trial.value is None else repr(trial.value)
        writer.writerow((trial.number, trial.state, value, " ".join(trial.runs), *map(_word, trial.point.values())))
    return stream.getvalue()


def markdown_table(trials: Sequence[Trial], goal: Goal, best: int | None) -> str:
    """One line per trial; the best value is bold."""
    paths = list(trials[0].point) if trials else []
    head = ["Trial", f"{goal.metric} ({goal.source}, {goal.split})", *map(markdown_text, paths)]
    lines = [markdown_row(head), markdown_row(["---:"] * len(head))]
    for trial in trials:
        value = trial.state if trial.value is None else f"{trial.value:.4g}"
        shown = f"**{value}**" if trial.number == best else value
        lines.append(markdown_row([str(trial.number), shown, *(markdown_text(_word(v)) for v in trial.point.values())]))
    return "\n".join(lines) + "\n"


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _yaml(values: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=120)
    return text
