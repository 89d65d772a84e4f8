"""Paired differences of several results to the first one, judged together as one family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from z1g.report.collect import MetricInfo
from z1g.report.replicates import Table
from z1g.report.statistics import Estimate, estimate, holm, p_value
from z1g.report.verdicts import METHODS, MODELS, SPLATS, Figure, figure, word


@dataclass(frozen=True)
class Judged:
    """A difference: its figure, and what may be said about it.

    `p` belongs to the difference alone, `p_family` is adjusted for all differences of the family; both are None where
    there are too few objects. `verdict` is one of `z1g.report.verdicts.word`, `about` says what it is about.
    """

    figure: Figure
    p: float | None
    p_family: float | None
    verdict: str
    about: str
    estimate: Estimate


def judge(
    tables: Mapping[str, Sequence[Table | None]], metrics: Mapping[str, MetricInfo]
) -> tuple[dict[str, list[Judged | None]], int]:
    """Judge the differences to the first table of each metric, and count those that were tested.

    `tables[metric][i]` are the values of result i. An entry is None for the first result and without common objects.
    Holm's correction covers all metrics and results.
    """
    gaps = {name: [None, *(_difference(row[0], other) for other in row[1:])] for name, row in tables.items()}
    flat = [gap for row in gaps.values() for gap in row if gap is not None]
    p = np.array([float(p_value(gap)) for gap in flat], np.float64)
    found = {id(gap): pair for gap, pair in zip(flat, zip(p.tolist(), holm(p).tolist(), strict=True), strict=True)}

    def judged(name: str, i: int, gap: Estimate | None) -> Judged | None:
        if gap is None:
            return None
        table = tables[name][i]
        trained = table is None or table.trained
        subject = SPLATS if not trained else METHODS if gap.about_methods else MODELS
        own, adjusted = found[id(gap)] if gap.testable else (None, None)
        verdict = word(gap, np.nan if adjusted is None else adjusted, metrics[name])
        return Judged(figure(gap), own, adjusted, verdict, subject, gap)

    return {name: [judged(name, i, gap) for i, gap in enumerate(row)] for name, row in gaps.items()}, int(
        (~np.isnan(p)).sum()
    )


def _difference(base: Table | None, other: Table | None) -> Estimate | None:
    """Estimate of the mean difference `other` − `base` over common objects; None if there are none."""
    if base is None or other is None:
        return None
    common = set(base.objects) & set(other.objects)
    return estimate(other.only(common).values, base.only(common).values) if common else None
