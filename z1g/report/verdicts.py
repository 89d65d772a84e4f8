"""Verdicts in words: what may be said about a difference, about a ranking, and how much it would take to say more."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from z1g.core.names import counted
from z1g.report.collect import MetricInfo
from z1g.report.replicates import Table
from z1g.report.statistics import (
    ALPHA,
    MIN_OBJECTS,
    MIN_SEEDS,
    POWER,
    Array,
    Estimate,
    behind_the_best,
    estimate,
    interval,
    needed,
    p_value,
)

TOO_FEW = "too few to say"
UNCLEAR = "unclear"
EFFECT_DB = 0.2
"""The difference, in dB, for which the numbers of objects and seeds are said."""
PAIRED_VALUES = 2_000_000
"""Values of pairs that are tested at once."""
METHODS, MODELS, SPLATS = "methods", "models", "splats"
"""What a verdict is about: methods (seeds were repeated), the trained models at hand, or splats without training."""

HOW_TO_READ = (
    "[low, high] is the 95 % interval of a mean: if everything were repeated with other objects and other seeds, about "
    f"95 of 100 such intervals would contain the true mean. No interval is given below {MIN_OBJECTS} objects."
)


@dataclass(frozen=True)
class Figure:
    """A mean over `n` objects and `seeds` seeds with its 95 % interval.

    The interval is None below MIN_OBJECTS objects and for a metric of sets. With one seed it is over objects only.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    seeds: int = 1


def figure(of: Estimate) -> Figure:
    """The mean and interval of an estimate without leading dimensions."""
    low, high = (float(end) for end in interval(of))
    known = math.isfinite(low) and math.isfinite(high)
    return Figure(float(of.mean), low if known else None, high if known else None, of.n_objects, min(of.n_seeds))


def word(of: Estimate, p: float, info: MetricInfo) -> str:
    """The verdict on a difference: better, worse (higher, lower without a direction), equal, UNCLEAR or TOO_FEW.

    `p` is adjusted for the family of comparisons.
    """
    if not of.testable:
        return TOO_FEW
    if float(of.mean) == 0 and float(of.objects) == 0:
        return "equal"
    if not p <= ALPHA:
        return UNCLEAR
    higher = float(of.mean) > 0
    if info.higher_is_better is None:
        return "higher" if higher else "lower"
    return "better" if higher == info.higher_is_better else "worse"


def spoken(verdict: str, subject: str) -> str:
    """A verdict for a table's cell; one about trained models says so."""
    return f"{verdict} (these models)" if subject == MODELS and verdict not in (TOO_FEW, UNCLEAR, "equal") else verdict


def one_seed(names: Sequence[str]) -> str:
    """What cannot be said about methods that were trained once."""
    return (
        f"{', '.join(names)}: trained with one seed, so how much results change from one training to the next "
        "(training noise) is unknown. Verdicts are about these trained models, not about methods. To judge methods, "
        f"train each with at least {MIN_SEEDS} seeds; three or more say much more."
    )


@dataclass(frozen=True)
class Ranking:
    """Who may be the best by one metric.

    `behind` says for each method whether it is worse than the best, None if that cannot be tested. `why` is empty, or
    the reason why nothing can be said.
    """

    leader: int
    behind: list[bool | None]
    subject: str
    why: str = ""

    @property
    def tied(self) -> list[int]:
        """The methods that cannot be told from the best, the leader included."""
        return [i for i, flag in enumerate(self.behind) if flag is not True]

    def verdicts(self) -> list[str]:
        """A word for each method: best, may be the best, worse than the best, or TOO_FEW."""
        if self.why:
            return [TOO_FEW] * len(self.behind)
        alone = len(self.tied) == 1
        return ["worse than the best" if flag else "best" if alone else "may be the best" for flag in self.behind]


def rank(tables: Sequence[Table], info: MetricInfo) -> Ranking | None:
    """Rank at least two methods by a metric with a direction, over the objects that all have; None otherwise."""
    if len(tables) < 2 or info.higher_is_better is None:
        return None
    common = set.intersection(*(set(table.objects) for table in tables))
    if not common:
        return None
    shared = [table.only(common) for table in tables]
    sign = 1 if info.higher_is_better else -1
    means = np.array([sign * float(table.values.mean()) for table in shared])
    leader = int(means.argmax())
    pairs = p_of_pairs([table.values for table in shared])
    subject = METHODS if all(len(table.values) >= MIN_SEEDS for table in shared) else MODELS
    if not all(table.trained for table in shared):
        subject = SPLATS
    if len(common) < MIN_OBJECTS:
        why = f"{counted(len(common), 'object')}, at least {MIN_OBJECTS} are needed"
        return Ranking(leader, [None] * len(tables), subject, why)
    return Ranking(leader, [bool(flag) for flag in behind_the_best(means, pairs)], subject)


def p_of_pairs(values: Sequence[Array]) -> Array:
    """P-values [..., K, K] of the differences of all pairs of K methods, each [..., S, N] over the same objects."""
    k = len(values)
    p = np.full((*values[0].shape[:-2], k, k), np.nan)
    alike: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i, j in itertools.combinations(range(k), 2):
        alike.setdefault((values[i].shape[-2], values[j].shape[-2]), []).append((i, j))
    block = max(1, PAIRED_VALUES // max(one.size for one in values))  # bounds memory
    for pairs in alike.values():
        for start in range(0, len(pairs), block):
            part = pairs[start : start + block]
            first, second = (np.stack([values[pair[side]] for pair in part]) for side in (0, 1))
            for (i, j), found in zip(part, p_value(estimate(first, second)), strict=True):
                p[..., i, j] = p[..., j, i] = found
    return p


def ranking_text(ranking: Ranking, names: Sequence[str], label: str) -> str:
    """A sentence on who is best by a metric."""
    if ranking.why:
        return f"{label}: {TOO_FEW} who is best ({ranking.why})."
    whose = "model" if ranking.subject == MODELS else "method"
    others = [names[i] for i in ranking.tied if i != ranking.leader]
    leader = names[ranking.leader]
    if not others:
        return f"{label}: {leader} is the best {whose}."
    if len(ranking.tied) == len(names):
        return f"{label}: no {whose} can be told from the best ({leader} leads)."
    return f"{label}: {leader} leads; {', '.join(others)} cannot be told from it."


def power_text(of: Estimate, label: str, subject: str, effect: float = EFFECT_DB) -> str:
    """How many objects or seeds would show a true difference of `effect` dB, in words."""
    start = (
        f"{label}: to see a difference of {effect:g} dB with {POWER * 100:.0f} % probability (a cautious estimate), "
    )
    if of.n_objects < 2:
        return start + "it takes an unknown number of objects: their spread needs at least two."
    need = needed(of, effect)
    if subject == SPLATS:
        return start + f"it takes {_number(need.objects, 'object')}."
    if not of.about_methods:
        return start + (
            f"it takes {_number(need.objects, 'object')} for these trained models; for the methods it is unknown, "
            "since training noise is."
        )
    if need.objects is None and need.seeds is None:
        if need.both is None:
            return start + "it takes more than ten thousand objects or a thousand seeds of each method."
        n, s = need.both
        both = f"{_number(n, 'object')} and {counted(s, 'seed')} of each method"
        return f"{start}it takes {both}; more of one alone would not do."
    few = sorted(set(of.n_seeds))
    seeds = _these(few[0], "seed") if len(few) == 1 else f"these {' and '.join(map(str, of.n_seeds))} seeds"
    objects = (
        f"with {seeds} no number of objects would do"
        if need.objects is None
        else f"with {seeds} it takes {_number(need.objects, 'object')}"
    )
    more = (
        f"with {_these(of.n_objects, 'object')} no number of seeds would do"
        if need.seeds is None
        else f"with {_these(of.n_objects, 'object')} it takes {_number(need.seeds, 'seed')} of each method"
    )
    return f"{start}{objects}, and {more}."


def _these(n: int, noun: str) -> str:
    """The numbers that a comparison has: this seed, these 2 seeds."""
    return f"this {noun}" if n == 1 else f"these {counted(n, noun)}"


def _number(n: int | None, noun: str) -> str:
    """An estimated number with two significant digits."""
    if n is None:
        return f"more than a million {noun}s"
    rounded = n if n < 100 else int(float(f"{n:.1e}"))
    return f"about {counted(rounded, noun)}"
