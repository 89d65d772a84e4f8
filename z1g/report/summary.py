"""Rows of the result tables: means over objects and seeds, with intervals and with who may be the best."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from z1g.core.names import counted
from z1g.jobs.budget import Budget
from z1g.report.collect import Ablation, JsonRow, Measurements, MetricInfo, Results
from z1g.report.left_out import budget_of
from z1g.report.peers import SOURCE as PEER
from z1g.report.peers import Peer, comparable
from z1g.report.replicates import Replicate, Replicates, Table, arms
from z1g.report.statistics import estimate
from z1g.report.verdicts import Figure, Ranking, figure, rank

SOURCES = {
    "fitted": "fitted splats (upper bound)",
    "autodecoder": "autodecoder on true codes",
    "sampled": "sampled (the method)",
    "peer": "another system's outputs",
    "nearest": "nearest training object",
    "mean_code": "mean code",
}
SPLITS = {"test": "Test objects", "test_unseen": "Unseen categories", "train": "Training objects"}
SPLIT_NAMES = {"test_unseen": "unseen categories"}
"""Names of splits in the middle of a text, where they differ from the split's own."""
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
class Row:
    """One table row: a source on a split, for the ablations that share it. `tables` has the values of its figures."""

    ablations: tuple[str, ...]
    source: str
    split: str
    n: int
    figures: dict[str, Figure]
    tables: dict[str, Table] = field(default_factory=dict, compare=False)

    @property
    def seeds(self) -> int:
        """Number of seeds of its figures."""
        return max((figure.seeds for figure in self.figures.values()), default=1)


@dataclass(frozen=True)
class Summary:
    """`single` has one row per ablation, source and split; `merged` has shared rows once.

    `metrics` has the metrics with values, `missing` the reason for each metric without one, `gaps` the reason for each
    metric that some objects lack. Keys of `missing` and `gaps` are labels. Replicates of an arm are one row, under the
    arm's name; `pruned` has the runs that no row contains, with reasons. `budget` is the set's if it left out runs.
    `peers` are other systems that were measured on the same images.
    """

    metrics: dict[str, MetricInfo]
    single: list[Row]
    merged: list[Row]
    missing: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    gaps: dict[str, str] = field(default_factory=dict)
    pruned: dict[str, str] = field(default_factory=dict)
    budget: Budget | None = None
    peers: tuple[Peer, ...] = ()

    def served(self, row: Row) -> str:
        """The ablations of a row as text, in the order of the set; of another system its name."""
        if row.source == PEER:
            return ", ".join(row.ablations)
        return in_words([name for name in self.names if name in row.ablations], len(self.names))


def shown(splits: Iterable[str]) -> list[str]:
    """The splits of results that charts show: those of held-out objects, or the training split if there are none."""
    found = set(splits)
    return [split for split in SPLITS if split in found and split != "train"] or ["train"] * ("train" in found)


def heading(info: MetricInfo, split: str, splits: Sequence[str]) -> str:
    """Heading of a chart of a metric: with the split, where other charts show the metric on other splits."""
    return f"{info.heading}, {SPLIT_NAMES.get(split, split)}" if split != splits[0] else info.heading


def in_words(names: Sequence[str], n_all: int) -> str:
    """Names separated by commas, or `all 5` for the whole set."""
    return f"all {n_all}" if len(names) == n_all > 1 else ", ".join(names)


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
    """Summary rows of one run."""
    return arm_rows(name, Replicates((Replicate(None, (measured,)),)))


def arm_rows(name: str, replicates: Replicates) -> list[Row]:
    """Summary rows of an arm: means over the objects that all its replicates have."""
    runs = [measured for member in replicates.members for measured in member.measured]
    metrics = {metric: info for measured in runs for metric, info in measured.metrics.items()}
    summary = []
    for (split, source), rows in grouped([row for measured in runs for row in measured.rows]).items():
        n = len({row["object"] for row in rows})
        figures: dict[str, Figure] = {}
        tables: dict[str, Table] = {}
        for metric, info in metrics.items():
            if info.scope == "set":
                figures |= _set_figure(replicates, metric, split, source, n)
                continue
            table = replicates.table(metric, split, source)
            if table.objects:
                tables[metric], figures[metric] = table, figure(estimate(table.values))
        summary.append(Row((name,), source, split, n, figures, tables))
    return summary


def _set_figure(replicates: Replicates, metric: str, split: str, source: str, n: int) -> dict[str, Figure]:
    """Mean over seeds of a metric of sets, without an interval; empty without a value."""
    known = replicates.set_values(metric, split, source)
    return {metric: Figure(math.fsum(known) / len(known), None, None, n, len(known))} if known else {}


def summarize(results: Results, ablations: Sequence[Ablation]) -> Summary:
    """Summarize all ablations."""
    metrics: dict[str, MetricInfo] = {}
    missing: dict[str, str] = {}
    gaps: dict[str, dict[str, str]] = {}
    single: list[Row] = []
    merged: list[tuple[Row, Identity]] = []
    pruned: dict[str, str] = {}
    for arm in (grouped_arms := arms(ablations)):
        measured: dict[str, Measurements] = {}
        for run in arm.runs:
            if "metrics" not in run.stages:
                results.note(f"ablation {run.name} has no metrics stage")
                continue
            measured[run.name] = results.measurements(run.stages["metrics"])
        for one in measured.values():
            metrics |= {name: info for name, info in one.metrics.items() if name not in metrics}
            missing |= one.missing
            gaps |= {name: reasons_by_object for name, reasons_by_object in one.gaps.items() if reasons_by_object}
        replicates = arm.replicates({name: one for name, one in measured.items() if one.rows})
        pruned |= replicates.pruned
        groups = grouped([row for one in measured.values() for row in one.rows])
        for row in arm_rows(arm.name, replicates):
            single.append(row)
            _merge(merged, row, _identity(row, arm.runs, groups[row.split, row.source]))
    peers = comparable(results, [one for arm in grouped_arms for one in _measured(results, arm.runs)])
    for peer in peers:
        metrics |= {name: info for name, info in peer.measured.metrics.items() if name not in metrics}
        rows = summary_rows(peer.label, peer.measured)
        single += rows
        merged += [(row, ((peer.label,), frozenset())) for row in rows]
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
    names = tuple(arm.name for arm in grouped_arms if arm.runs)
    budget = budget_of(results, ablations)
    return Summary(shown_metrics, single, ordered, reasons, names, gap_texts, pruned, budget, tuple(peers))


def _measured(results: Results, runs: Sequence[Ablation]) -> list[Measurements]:
    return [results.measurements(run.stages["metrics"]) for run in runs if "metrics" in run.stages]


def rankings(rows: list[Row], metrics: dict[str, MetricInfo]) -> dict[tuple[str, str], tuple[list[int], Ranking]]:
    """Who may be the best among the samples, by (split, metric): indices of rows and their ranking.

    Metrics of sets, metrics without a direction and single rows are not ranked, nor is another system that lacks
    objects which the samples have: the ranking is over objects that all have.
    """
    found = {}
    for split in dict.fromkeys(row.split for row in rows):
        for metric, info in metrics.items():
            ranked = [i for i, row in enumerate(rows) if row.split == split and metric in row.tables]
            sampled = [i for i in ranked if rows[i].source == "sampled"]
            wanted = {name for i in sampled for name in rows[i].tables[metric].objects}
            whole = [i for i in ranked if rows[i].source == PEER and wanted <= set(rows[i].tables[metric].objects)]
            ranked = [*sampled, *whole] if sampled else []
            ranking = rank([rows[i].tables[metric] for i in ranked], info)
            if ranking is not None:
                found[split, metric] = (ranked, ranking)
    return found


def best(rows: list[Row], metrics: dict[str, MetricInfo]) -> set[tuple[int, str]]:
    """(row index, metric) of the samples that may be the best, where a ranking leaves some behind."""
    return {
        (ranked[i], metric)
        for (_, metric), (ranked, ranking) in rankings(rows, metrics).items()
        if not ranking.why and len(ranking.tied) < len(ranked)
        for i in ranking.tied
    }


def verdict_words(rows: list[Row], metrics: dict[str, MetricInfo]) -> dict[tuple[int, str], tuple[str, str]]:
    """(row index, metric): the word of the ranking, and whether it is about methods or about trained models."""
    return {
        (index, metric): (verdict, ranking.subject)
        for (_, metric), (ranked, ranking) in rankings(rows, metrics).items()
        for index, verdict in zip(ranked, ranking.verdicts(), strict=True)
    }


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
    return f"{counted(len(reasons), 'object')} without a value, e.g. {name}: {reason}"


def _rank(split: str, source: str) -> tuple[int, str, int, str]:
    splits, sources = list(SPLITS), list(SOURCES)
    return (
        splits.index(split) if split in splits else len(splits),
        split,
        sources.index(source) if source in sources else len(sources),
        source,
    )


def _identity(row: Row, runs: Sequence[Ablation], measured: list[JsonRow]) -> Identity:
    """Equal for rows with the same splats and views."""
    stages = DECIDED_BY.get(row.source)
    ids = tuple(run.stages.get(stage) for run in runs for stage in stages) if stages else row.ablations
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
                Row(other.ablations + row.ablations, row.source, row.split, row.n, other.figures, other.tables),
                other_identity,
            )
            return
    merged.append((row, identity))
