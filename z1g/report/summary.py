"""Numbers of the tables: means over objects with bootstrap intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from z1g.report.collect import Ablation, JsonRow, Measurements, MetricInfo, Results

SOURCES = {
    "fitted": "fitted splats (upper bound)",
    "autodecoder": "autodecoder on true codes",
    "sampled": "sampled (the method)",
    "nearest": "nearest training object",
    "mean_code": "mean code",
}
SPLITS = {"test": "Test objects", "train": "Training objects"}
DECIDED_BY = {
    "fitted": ("ingest", "fit"),
    "autodecoder": ("autodecoder", "codes"),
    "sampled": ("infer",),
    "nearest": ("autodecoder", "codes"),
    "mean_code": ("autodecoder", "codes"),
}
"""Stages whose ids fix a source's splats: ablations that share them share the row."""


@dataclass(frozen=True)
class Figure:
    """A mean over `n` objects with its 95 % interval, which one object alone does not have."""

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Row:
    """One line of a table: a source on a split, for the ablations that share it."""

    ablations: tuple[str, ...]
    source: str
    split: str
    n: int
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Summary:
    """`single` has one row per ablation, source and split; `merged` shows shared rows once."""

    metrics: dict[str, MetricInfo]
    single: list[Row]
    merged: list[Row]
    missing: dict[str, str] = field(default_factory=dict)


def bootstrap_interval(values: Sequence[float], seed: int = 0, samples: int = 4000) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of the mean; None for fewer than two values."""
    data = np.asarray(values, dtype=np.float64)
    if data.size < 2:
        return None
    generator = np.random.default_rng(seed)
    block = max(1, 2_000_000 // data.size)  # bounds memory with many objects
    means: list[npt.NDArray[np.float64]] = []
    for start in range(0, samples, block):
        picks = generator.integers(0, data.size, size=(min(block, samples - start), data.size))
        means.append(data[picks].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def figure(values: Sequence[float]) -> Figure:
    """Mean and interval over objects."""
    low, high = bootstrap_interval(values) or (None, None)
    return Figure(math.fsum(values) / len(values), low, high, len(values))


def object_means(rows: list[JsonRow], metric: str) -> dict[str, float]:
    """Mean over views of each object, leaving out views where the metric could not be computed."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.get(metric) is not None:
            values.setdefault(row["object"], []).append(row[metric])
    return {name: math.fsum(found) / len(found) for name, found in values.items()}


def grouped(rows: list[JsonRow]) -> dict[tuple[str, str], list[JsonRow]]:
    """Rows by (split, source): test before train, sources in reading order, names nobody announced last."""
    groups: dict[tuple[str, str], list[JsonRow]] = {}
    for row in rows:
        groups.setdefault((row["split"], row["source"]), []).append(row)
    return dict(sorted(groups.items(), key=lambda item: _rank(*item[0])))


def summary_rows(name: str, measured: Measurements) -> list[Row]:
    """The rows of one ablation."""
    found = []
    for (split, source), rows in grouped(measured.rows).items():
        means = {metric: object_means(rows, metric) for metric in measured.metrics}
        figures = {metric: figure(list(values.values())) for metric, values in means.items() if values}
        found.append(Row((name,), source, split, len({row["object"] for row in rows}), figures))
    return found


def summarise(results: Results, ablations: Sequence[Ablation]) -> Summary:
    """All rows of all ablations."""
    metrics: dict[str, MetricInfo] = {}
    missing: dict[str, str] = {}
    single: list[Row] = []
    merged: dict[tuple[object, ...], Row] = {}
    for ablation in ablations:
        if "metrics" not in ablation.stages:
            results.note(f"ablation {ablation.name} has no metrics stage")
            continue
        measured = results.measurements(ablation.stages["metrics"])
        metrics |= {name: info for name, info in measured.metrics.items() if name not in metrics}
        missing |= measured.missing
        groups = grouped(measured.rows)
        for row in summary_rows(ablation.name, measured):
            single.append(row)
            key = _identity(row, ablation, groups[row.split, row.source])
            before = merged.get(key)
            names = (*before.ablations, ablation.name) if before else row.ablations
            merged[key] = Row(names, row.source, row.split, row.n, (before or row).figures)
    ordered = sorted(merged.values(), key=lambda row: _rank(row.split, row.source))
    return Summary(metrics, single, _merge_equal(ordered), missing)


def best(rows: list[Row], metrics: dict[str, MetricInfo]) -> set[tuple[int, str]]:
    """(index of the row, metric) of the best value of each metric on each split, among the sampled rows."""
    marked = set()
    for split in {row.split for row in rows}:
        rivals = [(i, row) for i, row in enumerate(rows) if row.split == split and row.source == "sampled"]
        for metric, info in metrics.items():
            values = {i: row.figures[metric].value for i, row in rivals if metric in row.figures}
            if len(values) < 2 or info.higher_is_better is None:
                continue  # the only one is no winner
            top = max(values.values()) if info.higher_is_better else min(values.values())
            marked |= {(i, metric) for i, value in values.items() if value == top}
    return marked


def decimals(rows: list[Row], metric: str) -> int:
    """Digits after the point that suit a column: about four significant ones for its largest value."""
    largest = max((abs(row.figures[metric].value) for row in rows if metric in row.figures), default=0.0)
    if largest == 0:
        return 3
    exponent = math.floor(math.log10(largest))
    return min(6, max(0, (3 if exponent >= 0 else 2) - exponent))


def _rank(split: str, source: str) -> tuple[int, str, int, str]:
    splits, sources = list(SPLITS), list(SOURCES)
    return (
        splits.index(split) if split in splits else len(splits),
        split,
        sources.index(source) if source in sources else len(sources),
        source,
    )


def _identity(row: Row, ablation: Ablation, measured: list[JsonRow]) -> tuple[object, ...]:
    """Equal for rows that must agree: same splats, measured on the same views with the same metrics."""
    stages = DECIDED_BY.get(row.source)
    ids = tuple(ablation.stages.get(stage) for stage in stages) if stages else (ablation.name,)
    views = frozenset((entry["object"], entry["view"]) for entry in measured)
    return row.split, row.source, ids, views, frozenset(row.figures)


def _merge_equal(rows: list[Row]) -> list[Row]:
    """Join rows of different ids that came out the same to the last digit (a baseline that ignores the difference)."""
    found: dict[tuple[object, ...], Row] = {}
    for row in rows:
        key = (row.split, row.source, row.n, tuple(sorted((m, f.value, f.n) for m, f in row.figures.items())))
        before = found.get(key)
        names = before.ablations + row.ablations if before else row.ablations
        found[key] = Row(names, row.source, row.split, row.n, row.figures)
    return list(found.values())
