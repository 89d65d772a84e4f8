"""Contents of the report's sections as plain values; the template only formats them."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from z1g.core.names import counted
from z1g.core.stages import CHUNKED_BY_OBJECTS, STAGE_NAMES, TRAINED
from z1g.report.collect import Ablation, JsonRow, Measurements, Results, differences, flatten, shared_ids
from z1g.report.curves import COLORS, Bar, Series, chart, intervals
from z1g.report.peers import SOURCE as PEER
from z1g.report.peers import Peer
from z1g.report.statistics import MIN_OBJECTS
from z1g.report.summary import Row, Summary, decimals, heading, rankings, shown
from z1g.report.tables import number
from z1g.report.verdicts import MODELS, ranking_text

EXTREMES = 3
KINDS = {"test": "held-out test", "test_unseen": "unseen-category", "train": "training"}
"""Adjectives for the objects of a split."""


@dataclass(frozen=True)
class Legend:
    """A legend entry: CSS classes of the line and its label."""

    style: str
    label: str


@dataclass(frozen=True)
class Curves:
    """The charts of one trained stage, each (title, SVG)."""

    stage: str
    charts: list[tuple[str, str]]
    legend: list[Legend]


@dataclass(frozen=True)
class StageTime:
    """Time and memory of one stage folder. `measured_by` is "job" or "stage"."""

    stage: str
    id: str
    ablations: list[str]
    jobs: int
    seconds: float
    longest: float
    memory_mb: float | None
    measured_by: str


@dataclass(frozen=True)
class Extreme:
    """The worst and best objects of one ablation or other system by a metric, each as (name, value, split).

    origin: the metrics id of an ablation, or the other system.
    """

    name: str
    origin: str | Peer
    worst: list[tuple[str, str, str]]
    best: list[tuple[str, str, str]]


def headline(summary: Summary) -> list[str]:
    """Sentences about the first metric on test objects, or on training objects if there are no test objects."""
    splits = shown(row.split for row in summary.merged if row.source == "sampled")
    split = splits[0] if splits else None
    if split is None or not summary.metrics:
        return ["No sampled result has been measured yet."]
    metric, info = next(iter(summary.metrics.items()))
    candidates = [row for row in _sampled(summary, split) if metric in row.figures]
    if not candidates:
        return [f"{info.label} of the samples has not been measured."]
    sign = -1 if info.higher_is_better is False else 1
    winner = max(candidates, key=lambda row: sign * row.figures[metric].value)
    kind = KINDS[split]
    verb = "have the highest mean" if sign > 0 else "have the lowest mean"
    verb = f"the samples of {' and '.join(winner.ablations)} {verb if len(candidates) > 1 else 'reach'}"
    sentences = [f"On {counted(winner.n, f'{kind} object')}, {verb}: {_with_interval(winner, summary, metric)}."]
    sentences += _may_be_best(summary, split, metric)
    for source, phrase in (("fitted", "Fitted splats, the upper bound, reach"), ("nearest", "Copying the nearest "
                           "training object gives")):  # fmt: skip
        other = next(
            (r for r in summary.merged if (r.split, r.source) == (split, source) and metric in r.figures), None
        )
        if other:
            sentences.append(f"{phrase} {_with_unit(other.figures[metric].value, summary, metric)}.")
            if source == "nearest" and sign * (winner.figures[metric].value - other.figures[metric].value) <= 0:
                sentences.append("No ablation is better than that yet.")
    return sentences + [_in_unseen_categories(winner, summary, metric)] * ("test_unseen" in splits[1:])


def _in_unseen_categories(winner: Row, summary: Summary, metric: str) -> str:
    """What the winner reaches on objects of categories that training never sees."""
    rows = [row for row in _sampled(summary, "test_unseen") if set(row.ablations) & set(winner.ablations)]
    row = next((row for row in rows if metric in row.figures), None)
    if row is None:
        return "It was not measured on unseen categories."
    return f"On {counted(row.n, KINDS['test_unseen'] + ' object')}, that is {_with_interval(row, summary, metric)}."


def _may_be_best(summary: Summary, split: str, metric: str) -> list[str]:
    """A sentence on whether the highest mean is also the best method, and one on training noise if that is unknown."""
    ranked, ranking = rankings(summary.merged, summary.metrics).get((split, metric), ([], None))
    if ranking is None:
        return []
    if ranking.why:
        return [f"That is too few to say who is best: it takes at least {MIN_OBJECTS} objects."]
    names = [summary.served(summary.merged[i]) for i in ranked]
    sentences = [ranking_text(ranking, names, summary.metrics[metric].label)]
    if ranking.subject == MODELS:
        sentences.append(
            "Some were trained once, so training noise is unknown: this is about models, not about methods."
        )
    return sentences


def interval_charts(summary: Summary) -> list[tuple[str, str]]:
    """Charts (heading, SVG) of each metric on the splits of held-out objects, or on the training split without them.

    They show the samples of each ablation, with the value of its autodecoder as a hollow marker, and the results that
    all ablations share.
    """
    splits = shown(row.split for row in summary.merged if row.source == "sampled")
    return [chart for split in splits for chart in _interval_charts(summary, split, splits)]


def _interval_charts(summary: Summary, split: str, splits: list[str]) -> list[tuple[str, str]]:
    rows = [row for row in summary.merged if row.split == split]
    shared = {row.source for row in rows if set(row.ablations) == set(summary.names)} - {"sampled", "autodecoder"}
    decoded = {name: row for row in rows if row.source == "autodecoder" for name in row.ablations}
    charts = []
    for metric, info in summary.metrics.items():
        bars = []
        for row in rows:
            if metric not in row.figures or row.source not in shared | {"sampled", PEER}:
                continue
            figure, strong = row.figures[metric], row.source in ("sampled", PEER)
            label = summary.served(row) if strong else row.source.replace("_", " ")
            reach = decoded[row.ablations[0]].figures.get(metric) if strong and row.ablations[0] in decoded else None
            bars.append(Bar(label, figure.value, figure.low, figure.high, strong, reach.value if reach else None))
        if bars:
            charts.append(
                (
                    heading(info, split, splits),
                    intervals(bars, f"{info.label} with 95 % intervals where there are enough objects"),
                )
            )
    return charts


def extremes(tree: Results, ablations: list[Ablation], summary: Summary) -> dict[str, list[Extreme]]:
    """Worst and best samples of each ablation, and outputs of each other system, by each metric with a direction."""
    by_metric: dict[str, list[Extreme]] = {}
    ids = [(a.name, a.stages["metrics"]) for a in ablations if "metrics" in a.stages]
    results: list[tuple[str, str | Peer, Measurements]] = [(name, key, tree.measurements(key)) for name, key in ids]
    results += [(peer.label, peer, peer.sampled().measured) for peer in summary.peers]
    for label, origin, measured in results:
        splits = {row["object"]: row["split"] for row in measured.rows if row["source"] == "sampled"}
        for metric, info in summary.metrics.items():
            if info.higher_is_better is None or info.scope == "set" or metric not in measured.metrics:
                continue
            means = {
                name: value
                for split in dict.fromkeys(splits.values())
                for name, value in measured.object_values(metric, split, "sampled").items()
            }
            if not means:
                continue
            ranked = sorted(means, key=lambda name: (means[name], name), reverse=not info.higher_is_better)
            n = min(EXTREMES, (len(ranked) + 1) // 2)
            labeled = [(name, _with_unit(means[name], summary, metric), splits[name]) for name in ranked]
            extreme = Extreme(label, origin, labeled[:n], labeled[::-1][:n])
            by_metric.setdefault(metric, []).append(extreme)
    return by_metric


def curves(tree: Results, ablations: list[Ablation]) -> list[Curves]:
    """Loss and validation curves of both trained stages: one line per stage id, in its first ablation's color."""
    order = [ablation.name for ablation in ablations]
    stage_curves = []
    for stage in TRAINED:
        groups = shared_ids(ablations, stage)
        lines = [(", ".join(names), order.index(names[0]), tree.history(stage, key)) for key, names in groups.items()]
        charts = []
        keys = {key for _, _, rows in lines for row in rows for key in row}
        for key in ("loss", "distill_loss", *sorted(key for key in keys if key.startswith("validation_"))):
            title, log_y = _curve_title(key), key.endswith("loss")
            series = [Series(label, _points(rows, key), color) for label, color, rows in lines]
            svg = chart(series, "step", title, log_y)
            charts += [(title, svg)] if svg else []
        legend = [Legend(line_style(color), label) for label, color, _ in lines]
        stage_curves.append(Curves(stage, charts, legend))
    return stage_curves


def line_style(index: int) -> str:
    """CSS classes of the n-th line of a chart."""
    return f"line{index % COLORS}{' dashed' if index >= COLORS else ''}"


def times(tree: Results, ablations: list[Ablation]) -> list[StageTime]:
    """Time of each stage folder, from Snakemake's benchmark files or else from the stage's own records."""
    stage_times = []
    for stage in STAGE_NAMES:
        for identity, names in shared_ids(ablations, stage).items():
            jobs = tree.benchmarks(stage, identity)
            if jobs:
                seconds = [_float(job.get("s")) or 0.0 for job in jobs]
                memory = [value for job in jobs if (value := _float(job.get("max_rss"))) is not None]
                peak = max(memory, default=None)
                stage_times.append(
                    StageTime(stage, identity, names, len(jobs), sum(seconds), max(seconds), peak, "job")
                )
            elif (noted := _noted_seconds(tree, stage, identity)) > 0:
                stage_times.append(StageTime(stage, identity, names, 0, noted, 0.0, None, "stage"))
    return stage_times


def config_table(ablations: list[Ablation]) -> dict[str, list[tuple[str, bool]]]:
    """Options that differ, with each ablation's value and whether it differs from the most common one."""
    table: dict[str, list[tuple[str, bool]]] = {}
    for key, values in sorted(differences([ablation.config for ablation in ablations]).items()):
        texts = [_value_text(value) for value in values]
        usual, count = Counter(texts).most_common(1)[0]
        table[key] = [(text, count > 1 and text != usual) for text in texts]
    return table


def resolved(ablations: list[Ablation]) -> list[tuple[str, str]]:
    """Name and complete configuration of each ablation, as lines of `key: value`."""
    return [
        (ablation.name, "\n".join(f"{key}: {_value_text(value)}" for key, value in flatten(ablation.config).items()))
        for ablation in ablations
        if ablation.config
    ]


def versions(tree: Results, ablations: list[Ablation]) -> tuple[list[str], dict[str, list[str]]]:
    """Commits and package versions of all ablations."""
    commits: dict[str, None] = {}
    packages: dict[str, dict[str, None]] = {}
    for ablation in ablations:
        measured = tree.measurements(ablation.stages["metrics"]) if "metrics" in ablation.stages else None
        if measured is None:
            continue
        if measured.commit:
            commits[measured.commit] = None
        for name, version in measured.versions.items():
            packages.setdefault(name, {})[str(version)] = None
    return list(commits), {name: list(package_versions) for name, package_versions in packages.items()}


def duration(seconds: float) -> str:
    """Format seconds: 12 s, 3 min 05 s, 2 h 40 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60}\N{NO-BREAK SPACE}min {rounded % 60:02d}\N{NO-BREAK SPACE}s"
    return f"{rounded // 3600}\N{NO-BREAK SPACE}h {rounded % 3600 // 60:02d}\N{NO-BREAK SPACE}min"


def _sampled(summary: Summary, split: str) -> list[Row]:
    return [row for row in summary.merged if row.source == "sampled" and row.split == split]


def _with_unit(value: float, summary: Summary, metric: str) -> str:
    return f"{number(value, decimals(summary.merged, metric))} {summary.metrics[metric].unit}".rstrip()


def _with_interval(row: Row, summary: Summary, metric: str) -> str:
    figure = row.figures[metric]
    text = f"{summary.metrics[metric].label} {_with_unit(figure.value, summary, metric)}"
    if figure.low is None or figure.high is None:
        return text
    digits = decimals(summary.merged, metric)
    return f"{text} (95 % interval {number(figure.low, digits)} to {number(figure.high, digits)})"


def _curve_title(key: str) -> str:
    title = key.replace("_", " ").capitalize()
    return title.replace("psnr", "PSNR, dB")


def _points(rows: list[JsonRow], key: str) -> list[tuple[float, float]]:
    return [(row["step"], row[key]) for row in rows if row.get(key) is not None]


def _noted_seconds(tree: Results, stage: str, identity: str) -> float:
    if stage in TRAINED:
        return max((row.get("seconds") or 0.0 for row in tree.history(stage, identity)), default=0.0)
    if stage in CHUNKED_BY_OBJECTS:
        return sum(row.get("seconds") or 0.0 for row in tree.chunks(stage, identity))
    return 0.0


def _float(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _value_text(value: Any) -> str:
    if value is ...:
        return "–"
    return value if isinstance(value, str) else json.dumps(value)
