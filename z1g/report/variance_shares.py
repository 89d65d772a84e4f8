"""Functional analysis of variance: which share of a metric's variance belongs to which factors.

The mean of a metric is a function of the factors. It is written as a sum of a constant, a function of each factor, one
of each pair, and so on, all orthogonal under the product of the factors' own distributions, so that their variances
add up (Hoeffding 1948; Sobol 1993). With orthonormal columns, the variance of a term is the sum of its squared
coefficients (Sudret, Reliability Engineering & System Safety 93, 2008). Squares of estimated coefficients are too large
by the coefficients' own variance, which is subtracted, as in the unbiased estimates of classical analysis of variance.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import stats

RESAMPLES = 1000
QUANTILES = (0.025, 0.975)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """A linear model of the means of A arms: columns [A, p] with the constant first, and the columns of each term.

    A saturated model has as many columns as arms. Only replicates tell its error.
    """

    columns: Array
    terms: dict[tuple[int, ...], slice]

    @property
    def saturated(self) -> bool:
        """Whether the model leaves no residual."""
        return self.spare == 0

    @property
    def spare(self) -> int:
        """Degrees of freedom of the residual."""
        return len(self.columns) - len(self.columns.T)

    @cached_property
    def inverse(self) -> Array:
        """Pseudo-inverse [p, A] of the columns."""
        return np.asarray(np.linalg.pinv(self.columns), dtype=np.float64)


@dataclass(frozen=True)
class Observed:
    """Values of N runs: the mean [A] and number [A] of each arm's runs, and deviations [N] from the arms' means."""

    means: Array
    counts: Array
    deviations: Array
    arm_of: npt.NDArray[np.intp]

    @classmethod
    def of(cls, values: Array, arm_of: npt.NDArray[np.intp]) -> "Observed":
        """From the value and the arm's number of every run. Every arm has at least one run."""
        counts = np.bincount(arm_of).astype(np.float64)
        means = np.bincount(arm_of, weights=values) / counts
        return cls(means, counts, values - means[arm_of], arm_of)

    @property
    def spare(self) -> int:
        """Degrees of freedom of the variance between replicates."""
        return len(self.arm_of) - len(self.means)


@dataclass(frozen=True)
class Share:
    """A share of the variance with the ends of its 95 % interval, and the probability of such a share by chance.

    `p` is that of an F test of the term, and None for what is not a term of the model.
    """

    value: float
    low: float
    high: float
    p: float | None = None


@dataclass(frozen=True)
class Shares:
    """Shares of all terms of the model, of the replicates (None if unknown) and of what the model leaves over."""

    terms: dict[tuple[int, ...], Share]
    replicates: Share | None
    unexplained: Share | None


def shares(model: Model, observed: Observed, replicated: bool, seed: int = 0) -> Shares | None:
    """Shares of variance, with intervals from resampled residuals (random seed `seed`); None if all values are equal.

    `replicated` says whether there are enough replicates to estimate their variance; a saturated model requires it.
    """
    spare = max(observed.spare, 1)
    noise = np.array([np.square(observed.deviations).sum() / spare]) if replicated else None
    parts = _parts(model, observed, observed.means[None], noise)
    total = parts.sum()
    if total <= 1e-24 * max(1.0, float(np.square(observed.means).max())):
        return None
    resampled = _resampled(model, observed, parts[0], replicated, np.random.default_rng(seed))
    sums = resampled.sum(axis=1, keepdims=True)
    low, high = np.quantile(resampled / np.where(sums > 0, sums, 1.0), QUANTILES, axis=0)
    probabilities = _chances(model, observed, noise)
    values = [Share(*map(float, row)) for row in zip(parts[0] / total, low, high, strict=True)]
    terms = {
        term: Share(value.value, value.low, value.high, p)
        for term, value, p in zip(model.terms, values, probabilities, strict=False)
    }
    return Shares(terms, values[-1] if replicated else None, None if model.saturated else values[-2])


def _parts(model: Model, observed: Observed, means: Array, noise: Array | None) -> Array:
    """Variances [B, terms + 2] of the terms, of the rest and of replicates, from means [B, A] and variances [B]."""
    coefficients = means @ model.inverse.T
    error, rest = _error(model, observed, means, noise)
    surplus = error @ np.square(model.inverse).T
    squares = np.square(coefficients) - surplus
    terms = [squares[:, columns].sum(axis=1) for columns in model.terms.values()]
    last = np.zeros(len(means)) if noise is None else noise
    parts: Array = np.maximum(np.stack([*terms, rest, last], axis=1), 0.0)
    return parts


def _error(model: Model, observed: Observed, means: Array, noise: Array | None) -> tuple[Array, Array]:
    """Variance [B, A] of the arms' means around the model, and that part [B] of it which replicates do not explain."""
    inverse_counts = 1 / observed.counts
    if model.saturated:
        assert noise is not None
        return noise[:, None] * inverse_counts, np.zeros(len(means))
    left = means - means @ model.inverse.T @ model.columns.T
    residual = np.square(left).sum(axis=1) / model.spare
    known = 0.0 if noise is None else noise * inverse_counts.mean()
    return np.repeat(residual[:, None], len(observed.counts), axis=1), residual - known


def _chances(model: Model, observed: Observed, noise: Array | None) -> list[float]:
    """p values of the terms: F tests of their coefficients."""
    error, _ = _error(model, observed, observed.means[None], noise)
    spare = observed.spare if model.saturated else model.spare
    covariance = (model.inverse * error[0]) @ model.inverse.T
    coefficients = model.inverse @ observed.means
    chances = []
    for columns in model.terms.values():
        own, block = coefficients[columns], covariance[columns, columns]
        if not block.any():  # there is no noise at all
            chances.append(0.0 if own.any() else 1.0)
            continue
        ratio = float(own @ np.linalg.solve(block, own)) / len(own)
        chances.append(float(stats.f.sf(ratio, len(own), spare)))
    return chances


def _resampled(
    model: Model, observed: Observed, parts: Array, replicated: bool, generator: np.random.Generator
) -> Array:
    """Parts [B, terms + 2] of resampled data: effects, shrunk to their unbiased size, plus drawn residuals."""
    coefficients = model.inverse @ observed.means
    for columns, part in zip(model.terms.values(), parts, strict=False):
        size = float(np.square(coefficients[columns]).sum())
        coefficients[columns] *= np.sqrt(part / size) if size > 0 else 0.0
    n_arms, n_runs = len(observed.means), len(observed.arm_of)
    noise, drawn_means = None, np.zeros((RESAMPLES, n_arms))
    if replicated:
        pool = observed.deviations * np.sqrt(n_runs / observed.spare)
        drawn = generator.choice(pool - pool.mean(), size=(RESAMPLES, n_runs))
        average = np.zeros((n_runs, n_arms))
        average[np.arange(n_runs), observed.arm_of] = 1 / observed.counts[observed.arm_of]
        drawn_means = drawn @ average
        noise = np.square(drawn - drawn_means[:, observed.arm_of]).sum(axis=1) / observed.spare
    if not model.saturated:
        left = observed.means - model.columns @ (model.inverse @ observed.means)
        pool = left * np.sqrt(n_arms / model.spare)
        drawn_means = generator.choice(pool - pool.mean(), size=(RESAMPLES, n_arms))
    return _parts(model, observed, model.columns @ coefficients + drawn_means, noise)
