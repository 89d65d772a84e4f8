"""Rows of the result tables: means over objects with bootstrap intervals."""

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
    "nearest": ("ingest", "fit"),
    "mean_code": ("autodecoder", "codes"),
}
"""Stages whose ids determine the splats of a source. Ablations that share these ids share the row."""


Identity = tuple[tuple[str | None, ...], frozenset[tuple[str, int]]]
"""Ids of the stages that determine a row, and the (object, view) pairs on which it was measured."""


@dataclass(frozen=True)
class Figure:
    """A mean over `n` objects with its 95 % interval, which is None for a single object or for a metric of sets."""

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Row:
    """One table row: a source on a split, for the ablations that share it."""

    ablations: tuple[str, ...]
    source: str
    split: str
    n: int
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Summary:
    """`single` has one row per ablation, source and split; `merged` has shared rows once.

    `metrics` has the metrics with values, `missing` the reason for each metric without one, `gaps` the reason for each
    metric that some objects lack. Keys of `missing` and `gaps` are labels.
    """

    metrics: dict[str, MetricInfo]
    single: list[Row]
    merged: list[Row]
    missing: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    gaps: dict[str, str] = field(default_factory=dict)

    def served(self, row: Row) -> str:
        """The ablations of a row as text, in the order of the set."""
        return in_words([name for name in self.names if name in row.ablations], len(self.names))


def in_words(names: Sequence[str], n_all: int) -> str:
    """Names separated by commas, or `all 5` for the whole set."""
    return f"all {n_all}" if len(names) == n_all > 1 else ", ".join(names)


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
    """Mean over views of each object. Views without a value are skipped."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.get(metric) is not None:
            values.setdefault(row["object"], []).append(row[metric])
    return {name: math.fsum(numbers) / len(numbers) for name, numbers in values.items()}


def grouped(rows: list[JsonRow]) -> dict[tuple[str, str], list[JsonRow]]:
    """Rows by (split, source): test before train, sources in the order of SOURCES, unknown names last."""
    groups: dict[tuple[str, str], list[JsonRow]] = {}
    for row in rows:
        groups.setdefault((row["split"], row["source"]), []).append(row)
    return dict(sorted(groups.items(), key=lambda item: _rank(*item[0])))


def summary_rows(name: str, measured: Measurements) -> list[Row]:
    """Summary rows of one ablation."""
    summary = []
    for (split, source), rows in grouped(measured.rows).items():
        n = len({row["object"] for row in rows})
        figures: dict[str, Figure] = {}
        for metric, info in measured.metrics.items():
            if info.scope == "set":
                value = measured.set_value(metric, split, source)
                figures |= {} if value is None else {metric: Figure(value, None, None, n)}
            elif values := measured.object_values(metric, split, source):
                figures[metric] = figure(list(values.values()))
        summary.append(Row((name,), source, split, n, figures))
    return summary


def summarize(results: Results, ablations: Sequence[Ablation]) -> Summary:
    """Summarize all ablations."""
    metrics: dict[str, MetricInfo] = {}
    missing: dict[str, str] = {}
    gaps: dict[str, dict[str, str]] = {}
    single: list[Row] = []
    merged: list[tuple[Row, Identity]] = []
    for ablation in ablations:
        if "metrics" not in ablation.stages:
            results.note(f"ablation {ablation.name} has no metrics stage")
            continue
        measured = results.measurements(ablation.stages["metrics"])
        metrics |= {name: info for name, info in measured.metrics.items() if name not in metrics}
        missing |= measured.missing
        gaps |= {name: reasons_by_object for name, reasons_by_object in measured.gaps.items() if reasons_by_object}
        groups = grouped(measured.rows)
        for row in summary_rows(ablation.name, measured):
            single.append(row)
            _merge(merged, row, _identity(row, ablation, groups[row.split, row.source]))
    ordered = sorted((row for row, _ in merged), key=lambda row: _rank(row.split, row.source))
    measured_metrics = {metric for row in single for metric in row.figures}
    reasons = {
        info.label: missing.get(name) or next(iter(gaps.get(name, {}).values()), "no value could be computed")
        for name, info in metrics.items()
        if name in missing or name not in measured_metrics
    }
    shown_metrics = {name: info for name, info in metrics.items() if name in measured_metrics}
    gap_texts = {
        metrics[name].label: _gap_text(reasons_by_object)
        for name, reasons_by_object in gaps.items()
        if name in shown_metrics
    }
    return Summary(shown_metrics, single, ordered, reasons, tuple(a.name for a in ablations), gap_texts)


def best(rows: list[Row], metrics: dict[str, MetricInfo]) -> set[tuple[int, str]]:
    """(row index, metric) of the best sampled value of each metric on each split."""
    marked = set()
    for split in {row.split for row in rows}:
        sampled_rows = [(i, row) for i, row in enumerate(rows) if row.split == split and row.source == "sampled"]
        for metric, info in metrics.items():
            values = {i: row.figures[metric].value for i, row in sampled_rows if metric in row.figures}
            if len(set(values.values())) < 2 or info.higher_is_better is None:
                continue  # a single value, or equal values, are not marked
            top = max(values.values()) if info.higher_is_better else min(values.values())
            marked |= {(i, metric) for i, value in values.items() if value == top}
    return marked


def decimals(rows: list[Row], metric: str) -> int:
    """Number of decimals of a column: about four significant digits of its largest value."""
    largest = max((abs(row.figures[metric].value) for row in rows if metric in row.figures), default=0.0)
    if largest == 0:
        return 3
    exponent = math.floor(math.log10(largest))
    return min(6, max(0, (3 if exponent >= 0 else 2) - exponent))


def _gap_text(reasons: dict[str, str]) -> str:
    """Number of objects without a value, with the first object's reason."""
    name, reason = next(iter(reasons.items()))
    return f"{len(reasons)} object{'' if len(reasons) == 1 else 's'} without a value, e.g. {name}: {reason}"


def _rank(split: str, source: str) -> tuple[int, str, int, str]:
    splits, sources = list(SPLITS), list(SOURCES)
    return (
        splits.index(split) if split in splits else len(splits),
        split,
        sources.index(source) if source in sources else len(sources),
        source,
    )


def _identity(row: Row, ablation: Ablation, measured: list[JsonRow]) -> Identity:
    """Equal for rows with the same splats and views."""
    stages = DECIDED_BY.get(row.source)
    ids = tuple(ablation.stages.get(stage) for stage in stages) if stages else (ablation.name,)
    return ids, frozenset((entry["object"], entry["view"]) for entry in measured)


def _merge(merged: list[tuple[Row, Identity]], row: Row, identity: Identity) -> None:
    """Merge a row with an equal one: up to rounding if both have the same identity, else exactly."""
    for i, (other, other_identity) in enumerate(merged):
        alike = (row.split, row.source, row.n, set(row.figures)) == (
            other.split,
            other.source,
            other.n,
            set(other.figures),
        )
        tolerance = 1e-3 if identity == other_identity else 0.0
        if alike and all(
            math.isclose(figure.value, other.figures[metric].value, rel_tol=tolerance)
            for metric, figure in row.figures.items()
        ):
            merged[i] = (
                Row(other.ablations + row.ablations, row.source, row.split, row.n, other.figures),
                other_identity,
            )
            return
    merged.append((row, identity))
