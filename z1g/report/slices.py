"""Marginal means: a metric against one option, averaged over all others, with intervals over runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from scipy import stats

from z1g.report.studies import Factor, Run, label

MAX_LEVELS, BINS = 12, 6
"""A number with more distinct values than MAX_LEVELS is divided into BINS groups of about equally many runs."""


@dataclass(frozen=True)
class Marginal:
    """Mean over the `n` runs at one value of an option, or in a range of values with center `at`."""

    at: float | str
    label: str
    mean: float
    low: float | None
    high: float | None
    n: int


def interval_of_mean(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Mean and 95 % t interval over runs (Student, Biometrika 6, 1908); None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    return mean, mean - reach, mean + reach


def marginals(factor: Factor, runs: Sequence[Run], metric: str) -> list[Marginal]:
    """Marginal means of a metric along an option. Runs that were pruned or have no value are left out."""
    usable = [run for run in runs if run.pruned is None and metric in run.values]
    if factor.numbers is not None and len(factor.levels) > MAX_LEVELS:
        return _binned(factor, usable, metric)
    groups: dict[str, list[float]] = {text: [] for text in factor.levels}
    for run in usable:
        groups[label(run.point.get(factor.key, ...))].append(run.values[metric])
    places: Sequence[float | str] = factor.numbers or factor.levels
    return [_marginal(at, text, values) for at, (text, values) in zip(places, groups.items(), strict=True) if values]


def _binned(factor: Factor, runs: Sequence[Run], metric: str) -> list[Marginal]:
    ordered = sorted(runs, key=lambda run: float(run.point[factor.key]))
    edges = [round(i * len(ordered) / BINS) for i in range(BINS + 1)]
    found = []
    for start, stop in pairwise(edges):
        part = ordered[start:stop]
        if part:
            at = [float(run.point[factor.key]) for run in part]
            logs = [math.log(value) for value in at] if factor.logarithmic else at
            center = math.fsum(logs) / len(logs)
            text = f"{at[0]:.3g} to {at[-1]:.3g}"
            values = [run.values[metric] for run in part]
            found.append(_marginal(math.exp(center) if factor.logarithmic else center, text, values))
    return found


def _marginal(at: float | str, text: str, values: list[float]) -> Marginal:
    interval = interval_of_mean(values)
    if interval is None:
        return Marginal(at, text, values[0], None, None, 1)
    return Marginal(at, text, *interval, len(values))
