"""What matters in a study: shares of a metric's variance by option, by pair of options, and by replicate."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from z1g.core.names import counted
from z1g.report.design import SPARE, full_grid, polynomial
from z1g.report.studies import Factor, Run, Study, label
from z1g.report.variance_shares import Model, Observed, Share, shares

ALPHA = 0.05
GRID = "analysis of variance of a full grid; replicates tell the noise"
HIGHER = "; interactions of three and more options are one effect"
POLYNOMIAL = "analysis of variance of a polynomial with {columns} coefficients, fitted to the means of {points} points"
SINGLE = "; there are too few points to estimate pairs of options"

Kind = Literal["option", "pair", "higher", "replicates", "unexplained"]


@dataclass(frozen=True)
class Effect:
    """A share of the variance with its 95 % interval. `p` is adjusted for all effects of the metric (Holm)."""

    kind: Kind
    keys: tuple[str, ...]
    label: str
    share: float
    low: float
    high: float
    p: float | None = None

    @property
    def told(self) -> bool:
        """Whether the effect can be told from noise."""
        return self.p is None or self.p < ALPHA


@dataclass(frozen=True)
class Importance:
    """Effects on a metric, the largest first; none, and why, if the study has too few points to say."""

    metric: str
    effects: list[Effect]
    method: str
    n_runs: int
    n_arms: int
    problem: str = ""

    @property
    def sentence(self) -> str:
        """The effects that can be told from noise, in words: noise 40 %, lr 35 %, lr × guidance 10 %."""
        if self.problem:
            return f"{self.problem[0].upper()}{self.problem[1:]}."
        parts = [f"{e.label} {100 * e.share:.0f}\N{NO-BREAK SPACE}%" for e in self.effects if e.told]
        return f"Variance between runs: {', '.join(parts)}."


def importance(study: Study, metric: str) -> Importance:
    """Main effects and pairwise interactions of the study's options on a metric."""
    runs = study.complete(metric)
    measured = replace(study, runs=runs)
    factors = measured.factors
    n_arms = len({run.arm for run in runs})
    values = np.array([run.values[metric] for run in runs], dtype=np.float64)
    if not factors:
        return Importance(metric, [], "", len(runs), n_arms, "the measured runs differ in no option of the study")
    levels, arm_of = _levels(factors, runs)
    observed = Observed.of(values, arm_of)
    replicated = observed.spare >= SPARE
    model = full_grid(factors, levels) if replicated else None
    if model is None:
        model = polynomial(factors, levels)
    if model is None:
        return Importance(metric, [], "", len(runs), n_arms, _too_few(factors, len(levels), len(runs)))
    found = shares(model, observed, replicated)
    if found is None:
        return Importance(metric, [], "", len(runs), n_arms, "all measured runs have the same value")
    method = GRID if model.saturated else POLYNOMIAL.format(columns=model.columns.shape[1], points=len(levels))
    method += HIGHER if () in model.terms else ""
    method += SINGLE if len(factors) > 1 and len(model.terms) == len(factors) else ""
    effects = _effects(model, [factor.key for factor in factors], found.terms)
    if found.replicates:
        effects.append(_effect("replicates", "noise (replicates)", found.replicates))
    if found.unexplained:
        text = "not described by the polynomial" if found.replicates else "noise and what is not described"
        effects.append(_effect("unexplained", text, found.unexplained))
    effects.sort(key=lambda effect: -effect.share)
    return Importance(metric, effects, method, len(runs), n_arms)


def effects_csv(study: Study, found: Iterable[Importance]) -> str:
    """A line per metric and effect, with full precision; a metric without effects has a line with the reason."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = ("study", "metric", "kind", "options", "share", "low", "high", "p", "runs", "arms", "method")
    writer.writerow(head)
    for item in found:
        about = (item.n_runs, item.n_arms, item.method or item.problem)
        for effect in item.effects:
            numbers = [repr(number) for number in (effect.share, effect.low, effect.high)]
            p = "" if effect.p is None else repr(effect.p)
            writer.writerow((study.name, item.metric, effect.kind, " × ".join(effect.keys), *numbers, p, *about))
        if not item.effects:
            writer.writerow((study.name, item.metric, "", "", "", "", "", "", *about))
    return stream.getvalue()


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The shortest ending of each key path that no other of them has: `unet.train.lr` is `lr` or `train.lr`.

    A `kind` alone says nothing, so `representation.scale.kind` is `scale.kind`.
    """
    names = {}
    for key in keys:
        parts = key.split(".")
        first = 2 if parts[-1] == "kind" and len(parts) > 1 else 1
        endings = [".".join(parts[-n:]) for n in range(first, len(parts) + 1)]
        others = [other for other in keys if other != key]
        names[key] = next(
            (e for e in endings if not any(other == e or other.endswith(f".{e}") for other in others)), key
        )
    return names


def _levels(factors: Sequence[Factor], runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray]:
    """Level numbers [A, F] of each distinct point, and the number [N] of every run's point."""
    index = [{text: number for number, text in enumerate(factor.levels)} for factor in factors]
    points = [
        tuple(index[i][label(run.point.get(factor.key, ...))] for i, factor in enumerate(factors)) for run in runs
    ]
    numbers = {point: number for number, point in enumerate(dict.fromkeys(points))}
    return np.array(list(numbers), dtype=np.intp), np.array([numbers[point] for point in points], dtype=np.intp)


def _effects(model: Model, keys: list[str], terms: dict[tuple[int, ...], Share]) -> list[Effect]:
    names = short_names(keys)
    adjusted = holm([share.p if share.p is not None else 1.0 for share in terms.values()])
    effects = []
    for (term, share), p in zip(terms.items(), adjusted, strict=True):
        own = tuple(keys[i] for i in term)
        text = " × ".join(names[key] for key in own) or "three and more options together"
        kind: Kind = "option" if len(own) == 1 else "pair" if own else "higher"
        effects.append(Effect(kind, own, text, share.value, share.low, share.high, p))
    return effects


def _effect(kind: Kind, text: str, share: Share) -> Effect:
    return Effect(kind, (), text, share.value, share.low, share.high)


def holm(chances: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    adjusted, worst = [0.0] * len(chances), 0.0
    for rank, index in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        worst = max(worst, min(1.0, (len(chances) - rank) * chances[index]))
        adjusted[index] = worst
    return adjusted


def _too_few(factors: Sequence[Factor], n_points: int, n_runs: int) -> str:
    columns = 1 + sum(1 if factor.numbers is not None else len(factor.levels) - 1 for factor in factors)
    needed = max(2 * columns, columns + SPARE)
    if n_points >= needed:
        return "options of the study always change together, so that their effects cannot be told apart"
    return (
        f"too few points to say: {counted(n_points, 'point')} in {counted(n_runs, 'run')} for "
        f"{counted(len(factors), 'option')}; it takes a full grid with at least {SPARE} runs more than "
        f"points, or {needed} points"
    )
