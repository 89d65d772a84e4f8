"""Intervals, tests and power for means over two sources of chance: objects and training seeds.

The model is crossed: a value of seed s and object o is mean + object + seed + rest, where objects and seeds are
random. Two methods are measured on the same objects, so object effects cancel in their difference; their seeds are
independent. `docs/statistics.md` has the measured coverage. All functions take arrays with any leading dimensions, so
that `z1g bench statistics` simulates with the functions that judge results.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, ndtri, stdtrit

Array = npt.NDArray[np.float64]

ALPHA = 0.05
POWER = 0.8
MIN_OBJECTS = 5
"""Below this, intervals of skewed values cover less than 93 % (docs/statistics.md)."""
MIN_SEEDS = 2
MOST = 1_000_000
"""Numbers of objects or seeds above this count as out of reach."""
_TINY = 1e-12
_MORE_SEEDS, _MANY_OBJECTS = (3, 5, 10, 20, 50, 100, 200, 500, 1000), 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean [...] with the parts of its variance.

    `objects` [...] is the squared standard error from objects, `skewness` [...] that of the objects' values, `seeds`
    the squared standard errors [...] from each method's seeds. `object_variance`, `seed_variances` and
    `rest_variances` are the variance components: of objects, and of each method's seeds and rest. What belongs to
    seeds is empty if a method was trained once.
    """

    mean: Array
    objects: Array
    skewness: Array
    seeds: tuple[Array, ...]
    n_objects: int
    n_seeds: tuple[int, ...]
    object_variance: Array
    seed_variances: tuple[Array, ...]
    rest_variances: tuple[Array, ...]

    @property
    def testable(self) -> bool:
        """Whether there are enough objects for an interval."""
        return self.n_objects >= MIN_OBJECTS

    @property
    def about_methods(self) -> bool:
        """Whether training noise was measured, so that a verdict is about methods and not only about trained models."""
        return all(n >= MIN_SEEDS for n in self.n_seeds)

    @property
    def repeats(self) -> tuple[int, ...]:
        """Numbers of seeds that the estimate generalizes from: none if a method was trained once."""
        return self.n_seeds if self.about_methods else ()


def estimate(first: Array, second: Array | None = None) -> Estimate:
    """Estimate the mean of `first` [..., S, N], or its mean difference to `second` [..., S', N] over the same objects.

    S and S' are numbers of seeds, N is the number of objects. Mean squares are those of the two-way layout without
    replication (Searle, Casella & McCulloch, Variance Components, 1992, chapter 4). If a method has one seed, seeds add
    nothing: the estimate is then about the trained models, not about methods.
    """
    methods = [first] if second is None else [first, second]
    by_object = first.mean(-2) if second is None else first.mean(-2) - second.mean(-2)
    n = by_object.shape[-1]
    spread = by_object.var(-1, ddof=1) if n > 1 else np.full(by_object.shape[:-1], np.nan)
    seeds, seed_variances, rest_variances = [], [], []
    n_seeds = tuple(values.shape[-2] for values in methods)
    for values, s in zip(methods, n_seeds, strict=True):
        if min(n_seeds) < MIN_SEEDS:
            break
        of_seeds = values.mean(-1).var(-1, ddof=1)
        rest = np.zeros_like(of_seeds)
        if n > 1:
            expected = (
                values.mean(-1, keepdims=True) + values.mean(-2, keepdims=True) - values.mean((-1, -2), keepdims=True)
            )
            rest = ((values - expected) ** 2).sum((-1, -2)) / ((s - 1) * (n - 1))
        seeds.append(of_seeds / s)
        seed_variances.append(np.maximum(of_seeds - rest / n, 0))
        rest_variances.append(rest)
    explained = sum((rest / s for rest, s in zip(rest_variances, n_seeds, strict=False)), np.zeros_like(spread))
    return Estimate(
        mean=by_object.mean(-1),
        objects=spread / n,
        skewness=_skewness(by_object),
        seeds=tuple(seeds),
        n_objects=n,
        n_seeds=n_seeds,
        object_variance=np.maximum(spread - explained, 0),
        seed_variances=tuple(seed_variances),
        rest_variances=tuple(rest_variances),
    )


def interval(of: Estimate, alpha: float | Array = ALPHA, minimum: int = MIN_OBJECTS) -> tuple[Array, Array]:
    """The interval of level 1 − alpha: both ends [...].

    Each variance is estimated separately and has its own quantile of Student's t: the squared half-width is Σ
    t²·variance. This covers at least 1 − alpha of normal means, whatever the variances are (Banerjee, Sankhyā 23:359,
    1961). The quantile of objects is the larger of Student's and of Hall's, which corrects for skewness (Journal of
    the Royal Statistical Society B 54:221, 1992). Both ends are NaN below `minimum` objects.
    """
    if of.n_objects < minimum:
        return np.full_like(of.mean, np.nan), np.full_like(of.mean, np.nan)
    down, up = _reach(of, alpha)
    return of.mean - down, of.mean + up


def p_value(of: Estimate) -> Array:
    """Smallest alpha [...] at which the interval excludes zero, at least 1e-12; NaN below MIN_OBJECTS."""
    if not of.testable:
        return np.full_like(of.mean, np.nan)
    low, high = np.full_like(of.mean, math.log(_TINY)), np.zeros_like(of.mean)
    for _ in range(40):
        middle = (low + high) / 2
        ends = interval(of, np.exp(middle))
        outside = (ends[0] > 0) | (ends[1] < 0)
        low, high = np.where(outside, low, middle), np.where(outside, middle, high)
    return np.where(of.mean == 0, 1.0, np.exp(high))


def holm(p: Array) -> Array:
    """Holm's adjusted p-values along the last axis [..., M] (Scandinavian Journal of Statistics 6:65, 1979).

    Rejecting those of at most alpha makes any false rejection in the family at most as likely as alpha, whatever the
    dependence. NaN are no members of the family and stay NaN.
    """
    order = np.argsort(p, -1)  # NaN last
    left = (~np.isnan(p)).sum(-1, keepdims=True) - np.arange(p.shape[-1])
    stepped = np.maximum.accumulate(np.take_along_axis(p, order, -1) * np.maximum(left, 1), -1)
    adjusted = np.empty_like(stepped)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1), -1)
    return adjusted


def behind_the_best(means: Array, p: Array, alpha: float = ALPHA) -> npt.NDArray[np.bool_]:
    """Which of K methods [..., K] are worse than the best one. Higher means are better.

    `p` [..., K, K] has the p-values of all pairs. A method is behind if its mean is lower than another one's with p of
    at most alpha / (K − 1). The truly best method is then among the rest with a probability of at least 1 − alpha: it
    is one member of K − 1 pairs. This is subset selection (Gupta, Technometrics 7:225, 1965) with Bonferroni's bound.
    Pairs with p NaN say nothing.
    """
    k = means.shape[-1]
    lower = means[..., :, None] < means[..., None, :]
    behind: npt.NDArray[np.bool_] = (lower & (p * max(k - 1, 1) <= alpha)).any(-1)
    return behind


@dataclass(frozen=True)
class Needed:
    """How many objects (at these seeds) or seeds (at these objects) an effect needs; None if no number would do.

    `both` has numbers of objects and seeds together, if neither alone would do.
    """

    objects: int | None
    seeds: int | None
    both: tuple[int, int] | None = None


def needed(of: Estimate, effect: float) -> Needed:
    """Objects or seeds for which a true `effect` is seen with probability POWER, from the variance components at hand.

    The effect is seen if the interval excludes zero: the expected half-width plus the quantile of POWER times the
    standard error is then at most the effect. Variances are taken at their upper 80 % confidence limits, because
    estimates from few objects or seeds are often much too small (Browne, Statistics in Medicine 14:1933, 1995). Takes
    a single estimate of at least two objects, without leading dimensions. Seeds are None below MIN_OBJECTS objects, and
    for methods of one seed, whose training noise is unknown.
    """
    objects = _least(lambda n: _seen(of, effect, n, of.repeats), MIN_OBJECTS, MOST)
    methods = len(of.repeats)
    seeds = None
    if of.about_methods and of.testable:
        seeds = _least(lambda s: _seen(of, effect, of.n_objects, (s,) * methods), MIN_SEEDS, MOST)
    if objects is not None or seeds is not None or not of.about_methods:
        return Needed(objects, seeds)
    for s in _MORE_SEEDS:
        n = _least(partial(_seen, of, effect, seeds=(s,) * methods), MIN_OBJECTS, _MANY_OBJECTS)
        if n is not None:
            return Needed(None, None, (n, s))
    return Needed(None, None)


def _skewness(values: Array) -> Array:
    """Sample skewness G1 over the last axis [..., N] (Joanes & Gill, The Statistician 47:183, 1998); 0 if undefined."""
    n = values.shape[-1]
    centered = values - values.mean(-1, keepdims=True)
    variance = (centered**2).mean(-1)
    if n < 3:
        return np.zeros_like(variance)
    safe = np.where(variance > 0, variance, 1.0)
    skewness: Array = (centered**3).mean(-1) / safe**1.5 * math.sqrt(n * (n - 1)) / (n - 2)
    return skewness


def _hall(quantile: Array, skewness: Array, n: int) -> Array:
    """Hall's inverse transformation of a quantile of the studentized mean of n values with this skewness."""
    a = skewness / math.sqrt(n)
    small = np.abs(a) < 1e-6
    safe = np.where(small, 1.0, a)
    return np.where(small, quantile, 3 / safe * (np.cbrt(1 + a * (quantile - a / 6)) - 1))


def _reach(of: Estimate, alpha: float | Array) -> tuple[Array, Array]:
    """Distances from the mean down and up to the ends of the interval."""
    tail = 1 - np.asarray(alpha, np.float64) / 2
    t = stdtrit(of.n_objects - 1, tail)
    down = np.maximum(t, _hall(t, of.skewness, of.n_objects)) ** 2 * of.objects
    up = np.maximum(t, -_hall(-t, of.skewness, of.n_objects)) ** 2 * of.objects
    repeated = zip(of.repeats, of.seeds, strict=True)
    others = sum((stdtrit(n - 1, tail) ** 2 * seeds for n, seeds in repeated), np.zeros(()))
    return np.sqrt(down + others), np.sqrt(up + others)


def _seen(of: Estimate, effect: float, n: int, seeds: tuple[int, ...]) -> bool:
    """Whether n objects and these numbers of seeds would show the effect."""
    tail = 1 - ALPHA / 2
    rests = [float(rest) for rest in of.rest_variances]
    variances = [
        _cautious(of.n_objects)
        * (float(of.object_variance) + sum(r / s for r, s in zip(rests, seeds, strict=True)))
        / n
    ]
    variances += [
        _cautious(m) * (float(v) + r / n) / s
        for v, r, s, m in zip(of.seed_variances, rests, seeds, of.repeats, strict=True)
    ]
    quantiles = [float(stdtrit(m - 1, tail)) for m in (n, *seeds)]
    reach = math.sqrt(math.fsum(q**2 * v for q, v in zip(quantiles, variances, strict=True)))
    return reach + float(ndtri(POWER)) * math.sqrt(math.fsum(variances)) <= effect


def _cautious(n: int) -> float:
    """Upper 80 % confidence limit of a variance that was estimated from n values, over the estimate."""
    return (n - 1) / float(chdtri(n - 1, POWER))


def _least(enough: Callable[[int], bool], start: int, most: int) -> int | None:
    """Smallest number from `start` for which `enough` holds, found by doubling and halving; None above `most`."""
    high = start
    while not enough(high):
        if high >= most:
            return None
        high = min(high * 2, most)
    low = high // 2 if high > start else start
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high
