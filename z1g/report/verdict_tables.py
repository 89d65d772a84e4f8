"""The report's tables of verdicts: differences of all samples to those of the first ablation, one table a split."""

from dataclasses import dataclass

from z1g.core.names import counted
from z1g.report.explain import DECIBEL, chance_text
from z1g.report.judge import Judged, judge
from z1g.report.peers import SOURCE as PEER
from z1g.report.replicates import Table
from z1g.report.statistics import MIN_OBJECTS
from z1g.report.summary import SPLITS, Row, Summary, decimals
from z1g.report.tables import signed
from z1g.report.verdicts import TOO_FEW, power_text, spoken


@dataclass(frozen=True)
class VerdictCell:
    """A difference with its interval, its verdict in words, and the verdict's first word as a CSS class."""

    text: str
    verdict: str
    kind: str


@dataclass(frozen=True)
class VerdictTable:
    """Verdicts of one split: a row per ablation but the first, a column per metric."""

    title: str
    head: list[str]
    rows: list[tuple[str, list[VerdictCell]]]
    notes: list[str]


def verdict_tables(summary: Summary) -> list[VerdictTable]:
    """Differences of the samples and of other systems to the samples of the first ablation, on common objects.

    There is no table for a split with fewer than two.
    """
    tables = []
    for split in dict.fromkeys(row.split for row in summary.merged):
        rows = [row for row in summary.merged if row.split == split and row.source in ("sampled", PEER)]
        rows.sort(key=lambda row: row.source == PEER)
        if len(rows) > 1 and rows[0].source == "sampled":
            tables.append(_table(summary, split, rows))
    return tables


def _table(summary: Summary, split: str, rows: list[Row]) -> VerdictTable:
    metrics = {name: info for name, info in summary.metrics.items() if name in rows[0].tables}
    values: dict[str, list[Table | None]] = {name: [row.tables.get(name) for row in rows] for name in metrics}
    judged, tested = judge(values, metrics)
    names = [summary.served(row) for row in rows]
    digits = {name: decimals(summary.merged, name) for name in metrics}
    lines = [(names[i], [_cell(judged[name][i], digits[name]) for name in metrics]) for i in range(1, len(rows))]
    where = SPLITS.get(split, split)
    others = "ablation's samples" if rows[-1].source != PEER else "ablation's samples and other system's outputs"
    title = f"{where}: difference of each {others} to those of {names[0]}, on the same objects."
    found = [one for row in judged.values() for one in row if one is not None]
    notes = [chance_text(tested)] if tested else []
    if any(one.verdict == TOO_FEW for one in found):
        notes.append(
            f"{counted(min(one.figure.n for one in found), 'object')}: a verdict takes at least {MIN_OBJECTS}."
        )
    notes += [
        power_text(one.estimate, f"{names[i]}, {metrics[name].label}", one.about)
        for name, row in judged.items()
        if metrics[name].unit == DECIBEL
        for i, one in enumerate(row)
        if one is not None
    ]
    return VerdictTable(title, [info.heading for info in metrics.values()], lines, notes)


def _cell(one: Judged | None, digits: int) -> VerdictCell:
    if one is None:
        return VerdictCell("–", "", "none")
    return VerdictCell(signed(one.figure, digits), spoken(one.verdict, one.about), one.verdict.split()[0])
