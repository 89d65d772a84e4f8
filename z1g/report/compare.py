"""Compares results: means, paired differences to the first result, verdicts, and whether the test sets are the same."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.report.collect import MetricInfo, Results, differences
from z1g.report.contenders import Contender, find_contender
from z1g.report.judge import Judged, judge
from z1g.report.replicates import Table
from z1g.report.statistics import estimate
from z1g.report.verdicts import Figure, Ranking, figure, rank

MAX_NAMED = 5


@dataclass(frozen=True)
class Entry:
    """A metric of one result: its mean, and its paired difference to the first result (None for the first).

    `judged` is None for metrics of sets. `left_out` objects are in no mean, because not every seed has them.
    """

    value: Figure | None
    difference: Figure | None = None
    judged: Judged | None = None
    left_out: int = 0


@dataclass(frozen=True)
class Comparison:
    """A comparison. `entries[metric][i]` belongs to `contenders[i]`; `config` has the options that differ.

    `rankings` has who may be the best by each metric, `family` is the number of differences that were tested together.
    """

    split: str
    source: str
    n_objects: int
    contenders: list[Contender]
    metrics: dict[str, MetricInfo]
    entries: dict[str, list[Entry]]
    config: dict[str, list[Any]]
    notes: list[str] = field(default_factory=list)
    rankings: dict[str, Ranking] = field(default_factory=dict)
    family: int = 0


def compare(results: Path, targets: Sequence[str], split: str, source: str) -> Comparison:
    """Compare ablations, metrics ids or result files. Raises UserError if they were measured on different sets."""
    tree = Results(results)
    contenders = [find_contender(tree, target) for target in targets]
    for contender in contenders:
        rows = [row for measured in contender.measurements for row in measured.rows]
        if not any((row["split"], row["source"]) == (split, source) for row in rows):
            available = sorted({f"{row['split']}/{row['source']}" for row in rows})
            raise UserError(
                f"{contender.name} has no rows of {split}/{source}; it has {', '.join(available) or 'none at all'}"
            )
    first = contenders[0]
    for other in contenders[1:]:
        _same_test_set(first, other, split, source)
    metrics: dict[str, MetricInfo] = {}
    for contender in contenders:
        metrics |= {name: info for name, info in contender.measured.metrics.items() if name not in metrics}
    entries, family = _entries(contenders, metrics, split, source)
    options = (
        differences([contender.config for contender in contenders])
        if all(contender.config for contender in contenders)
        else {}
    )
    notes = [note for contender in contenders for note in contender.notes]
    notes += [
        f"{contender.name}: {info.label} is missing: {why}"
        for contender in contenders
        for info, why in _missing(contender)
    ]
    notes += [note for note in tree.notes if "stage.json" not in note]
    return Comparison(
        split, source, len(_views(first, split, source)), contenders, {name: metrics[name] for name in entries},
        entries, options, notes, _rankings(contenders, metrics, split, source), family,
    )  # fmt: skip


def _entries(
    contenders: Sequence[Contender], metrics: dict[str, MetricInfo], split: str, source: str
) -> tuple[dict[str, list[Entry]], int]:
    """Entries by metric, with verdicts adjusted for all differences together, and the number of these differences."""
    tables: dict[str, list[Table | None]] = {}
    for name, info in metrics.items():
        found = [contender.replicates.table(name, split, source) for contender in contenders]
        if info.scope != "set":
            tables[name] = [table if table.objects else None for table in found]
    judged, family = judge(tables, metrics)
    entries: dict[str, list[Entry]] = {}
    for name in metrics:
        if name in tables:
            pairs = zip(tables[name], judged[name], strict=True)
            row = [_entry(table, one) for table, one in pairs]
        else:
            row = [_set_entry(contenders[0], other, name, split, source) for other in contenders]
        if any(entry.value for entry in row):
            entries[name] = row
    return entries, family


def _entry(table: Table | None, one: Judged | None) -> Entry:
    """The entry of a metric of views or objects."""
    if table is None:
        return Entry(None)
    return Entry(figure(estimate(table.values)), one.figure if one else None, one, table.left_out)


def _rankings(
    contenders: Sequence[Contender], metrics: dict[str, MetricInfo], split: str, source: str
) -> dict[str, Ranking]:
    """Who may be the best, by metric of views or objects; only for three results or more.

    Nobody is ranked where another system lacks objects: the ranking would be about the few that all have.
    """
    objects = [set(_views(contender, split, source)) for contender in contenders]
    if any(own != objects[0] for own in objects):
        return {}
    rankings: dict[str, Ranking] = {}
    for name, info in metrics.items():
        tables = [contender.replicates.table(name, split, source) for contender in contenders]
        if info.scope != "set" and len(tables) > 2 and all(table.objects for table in tables):
            ranking = rank(tables, info)
            rankings |= {name: ranking} if ranking else {}
    return rankings


def _same_test_set(first: Contender, other: Contender, split: str, source: str) -> None:
    views = [_views(contender, split, source) for contender in (first, other)]
    problems = []
    for own, opposite, name in ((views[0], views[1], first.name), (views[1], views[0], other.name)):
        missing = sorted(own.keys() - opposite.keys())
        if missing and not (first.is_peer or other.is_peer):
            problems.append(f"only in {name}: {_named(missing)}")
    common = sorted(views[0].keys() & views[1].keys())
    if not common:
        problems.append("no object is in both")
    if other_views := [name for name in common if views[0][name] != views[1][name]]:
        problems.append(f"measured on other views: {_named(other_views)}")
    truth = [
        {name: digest for measured in contender.measurements for name, digest in measured.truth.items()}
        for contender in (first, other)
    ]
    if other_images := [n for n in common if n in truth[0] and n in truth[1] and truth[0][n] != truth[1][n]]:
        problems.append(f"with other ground-truth images: {_named(other_images)}")
    if problems:
        raise UserError(
            f"{first.name} and {other.name} were measured on different {split} sets and cannot be compared; "
            + "; ".join(problems)
        )


def _views(contender: Contender, split: str, source: str) -> dict[str, set[int]]:
    """Measured views by object, of all runs."""
    views: dict[str, set[int]] = {}
    for measured in contender.measurements:
        for row in measured.rows:
            if (row["split"], row["source"]) == (split, source):
                views.setdefault(row["object"], set()).add(row["view"])
    return views


def _named(names: list[str]) -> str:
    n_hidden = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {n_hidden} more" if n_hidden > 0 else "")


def _set_entry(first: Contender, contender: Contender, metric: str, split: str, source: str) -> Entry:
    """The entry of a metric of whole sets: means over seeds, without intervals."""
    n = len(_views(contender, split, source))
    means, seeds = [], []
    for one in (contender, first):
        known = one.replicates.set_values(metric, split, source)
        means.append(sum(known) / len(known) if known else None)
        seeds.append(len(known))
    mean, base = means
    value = None if mean is None else Figure(mean, None, None, n, seeds[0])
    if contender is first or mean is None or base is None:
        return Entry(value)
    return Entry(value, Figure(mean - base, None, None, n, min(seeds)))


def _missing(contender: Contender) -> list[tuple[MetricInfo, str]]:
    return [(contender.measured.metrics[name], why) for name, why in contender.measured.missing.items()]
