"""Intervals, tests and power against mixed models, textbook formulas and simulation."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ttest_rel

from z1g.report.statistics import (
    MIN_OBJECTS,
    Estimate,
    behind_the_best,
    estimate,
    holm,
    interval,
    needed,
    p_value,
)
from z1g.report.verdicts import p_of_pairs

TABLES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(5, 9)).flatmap(
    lambda shape: st.tuples(
        *(arrays(np.float64, (s, shape[2]), elements=st.integers(-40, 40).map(float)) for s in shape[:2])
    )
)


def crossed(random: np.random.Generator, seeds: int, objects: int) -> np.ndarray:
    """Values of three crossed sources: objects, seeds, and the rest."""
    values = 20 + 2 * random.normal(size=objects) + 0.7 * random.normal(size=(seeds, 1))
    return values + 0.5 * random.normal(size=(seeds, objects))


@pytest.mark.slow
def test_components_are_those_of_a_mixed_model() -> None:
    """On balanced data, REML estimates are the ANOVA estimates where none is negative."""
    import pandas as pd  # here, because these imports take seconds
    import statsmodels.formula.api as smf

    values = crossed(np.random.default_rng(0), 6, 12)
    rows = [(v, s, o, 0) for s, row in enumerate(values) for o, v in enumerate(row)]
    frame = pd.DataFrame(rows, columns=["value", "seed", "object", "all"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = smf.mixedlm(
            "value ~ 1", frame, groups="all", vc_formula={"object": "0 + C(object)", "seed": "0 + C(seed)"}
        ).fit(reml=True)
    of = estimate(values)
    components = dict(zip(fit.model.exog_vc.names, fit.vcomp, strict=True))
    assert float(of.object_variance) == pytest.approx(components["object"], rel=1e-3)
    assert float(of.seed_variances[0]) == pytest.approx(components["seed"], rel=1e-3)
    assert float(of.rest_variances[0]) == pytest.approx(fit.scale, rel=1e-3)
    assert float(of.mean) == pytest.approx(fit.params["Intercept"], abs=1e-6)
    # The interval's variance counts the rest twice, so it is at least that of the mixed model.
    assert float(of.objects + of.seeds[0]) == pytest.approx(fit.bse["Intercept"] ** 2 + fit.scale / 72, rel=1e-3)


def test_mean_squares_computed_by_hand() -> None:
    # Seeds' means 3 and 5, objects' means 2, 4, 6: squared errors are 2 of seeds, 4 of objects, and nothing is left.
    of = estimate(np.array([[1.0, 3.0, 5.0], [3.0, 5.0, 7.0]]))
    assert (float(of.mean), float(of.object_variance)) == (4.0, 4.0)
    assert (float(of.seed_variances[0]), float(of.rest_variances[0])) == (2.0, 0.0)
    assert (float(of.objects), float(of.seeds[0])) == pytest.approx((4 / 3, 1.0))


def test_symmetric_values_of_one_seed_have_students_interval_and_p_value() -> None:
    gaps = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) + 1.3
    base = np.array([3.0, 9.0, 4.0, 7.0, 1.0])
    of = estimate((base + gaps)[None], base[None])
    reference = ttest_rel(base + gaps, base)
    ends = reference.confidence_interval()
    assert [float(end) for end in interval(of)] == pytest.approx([ends.low, ends.high])
    assert float(p_value(of)) == pytest.approx(reference.pvalue, rel=1e-6)
    assert not of.about_methods


def test_seeds_have_their_own_quantile_of_student() -> None:
    """Without spread over objects, only seeds count: t of one degree of freedom for two seeds."""
    values = np.array([[0.0], [1.0]]) + np.zeros((2, 6))
    low, high = interval(estimate(values))
    assert (float(low), float(high)) == pytest.approx((0.5 - 12.7062 * 0.5, 0.5 + 12.7062 * 0.5), rel=1e-4)
    pair = estimate(values, np.array([[2.0], [3.0], [4.0]]) + np.zeros((3, 6)))
    reach = math.sqrt(12.7062**2 * 0.25 + 4.30265**2 / 3)
    assert [float(end) for end in interval(pair)] == pytest.approx([-2.5 - reach, -2.5 + reach], rel=1e-4)


def test_against_a_method_of_one_seed_only_objects_count() -> None:
    random = np.random.default_rng(0)
    often, once = random.normal(size=(3, 7)), random.normal(size=(1, 7))
    of, models = estimate(often, once), estimate(often.mean(0, keepdims=True), once)
    assert not of.about_methods
    assert [float(end) for end in interval(of)] == pytest.approx([float(end) for end in interval(models)])
    assert needed(of, 0.2).seeds is None


def test_halls_transformation_widens_towards_the_long_tail() -> None:
    values = np.array([[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 4.0]])
    of = estimate(values)
    assert float(of.skewness) == pytest.approx(scipy.stats.skew(values[0], bias=False))
    low, high = (float(end) for end in interval(of))
    t = float(scipy.stats.t.ppf(0.975, 6) * scipy.stats.sem(values[0]))
    assert float(of.mean) - low == pytest.approx(t), "never narrower than Student's"
    # Hall's W solves W + g W²/3 + g² W³/27 + g/(6 n) = q / √n, solved here by numpy's roots of the cubic.
    g, n, q = float(of.skewness), 7, -float(scipy.stats.t.ppf(0.975, 6))
    roots = np.roots([g**2 / 27, g / 3, 1, g / (6 * n) - q / math.sqrt(n)])
    (w,) = roots[abs(roots.imag) < 1e-9].real
    assert high == pytest.approx(float(of.mean) - w * float(values.std(ddof=1)))
    assert high - float(of.mean) > 1.5 * t


@pytest.mark.slow
@given(TABLES, st.randoms(use_true_random=False), st.integers(-9, 9))
@settings(max_examples=25, deadline=None)
def test_order_names_and_units_change_no_verdict(tables: tuple, random, shift: int) -> None:
    first, second = tables
    of = estimate(first, second)
    p, ends = float(p_value(of)), np.array(interval(of))
    seeds = random.sample(range(len(first)), len(first))
    objects = random.sample(range(first.shape[1]), first.shape[1])
    shuffled = estimate(first[seeds][:, objects], second[:, objects])
    assert np.array(interval(shuffled)) == pytest.approx(ends, abs=1e-6)
    assert np.array(interval(estimate(first + shift, second))) == pytest.approx(ends + shift, abs=1e-6)
    assert np.array(interval(estimate(-first, -second))) == pytest.approx(-ends[::-1], abs=1e-6)
    assert np.array(interval(estimate(second, first))) == pytest.approx(-ends[::-1], abs=1e-6)
    scaled = estimate(3 * first, 3 * second)
    assert float(p_value(scaled)) == pytest.approx(p, rel=1e-4, abs=1e-9)
    # The p-value is the level at which the interval touches zero.
    if 1e-9 < p < 0.99:
        inside, outside = (interval(of, level) for level in (p * 0.99, min(p * 1.01, 1.0)))
        assert inside[0] <= 1e-9
        assert inside[1] >= -1e-9
        assert outside[0] > -1e-9 or outside[1] < 1e-9


@given(TABLES)
@settings(max_examples=30, deadline=None)
def test_a_method_is_never_better_than_itself(tables: tuple) -> None:
    for values in tables:
        assert float(p_value(estimate(values, values.copy()))) == 1.0
    means = np.array([values.mean() for values in (tables[0], tables[0])])
    assert not behind_the_best(means, np.ones((2, 2))).any()


@pytest.mark.parametrize("objects", range(1, MIN_OBJECTS))
def test_too_few_objects_have_no_interval(objects: int) -> None:
    of = estimate(np.arange(objects, dtype=float)[None] + 100)
    assert not of.testable
    assert np.isnan(interval(of)).all()
    assert np.isnan(p_value(of))


@pytest.mark.slow
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_holm_is_that_of_statsmodels(p: list[float], unknown: int) -> None:
    from statsmodels.stats.multitest import multipletests

    adjusted = holm(np.array([*p, *[math.nan] * unknown]))
    assert adjusted[: len(p)] == pytest.approx(multipletests(p, method="holm")[1])
    assert np.isnan(adjusted[len(p) :]).all()


def test_who_is_behind_the_best() -> None:
    means = np.array([3.0, 2.9, 1.0])
    p = np.full((3, 3), 0.6)
    p[0, 2] = p[2, 0] = 0.02  # 0.02 · 2 pairs is below 5 %
    assert behind_the_best(means, p).tolist() == [False, False, True]
    p[0, 2] = p[2, 0] = 0.03
    assert not behind_the_best(means, p).any()
    assert not behind_the_best(means, np.full((3, 3), math.nan)).any()


@pytest.mark.parametrize("at_once", [1, 10_000])
def test_pairs_are_tested_one_by_one_or_together(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr("z1g.report.verdicts.PAIRED_VALUES", at_once)
    random = np.random.default_rng(0)
    values = [random.normal(size=(seeds, 6)) + seeds for seeds in (1, 3, 2, 1)]
    p = p_of_pairs(values)
    for i, a in enumerate(values):
        assert np.isnan(p[i, i])
        for j, b in enumerate(values[:i]):
            assert p[i, j] == p[j, i] == pytest.approx(float(p_value(estimate(a, b))))


def table(objects: int, seeds: int, spread: float, noise: float) -> np.ndarray:
    """Values whose object, seed and rest variances are spread², noise² and 0."""
    alternating = lambda n: np.resize([1.0, -1.0], n) * math.sqrt((n - 1) / n)  # noqa: E731
    return spread * alternating(objects) + noise * alternating(seeds)[:, None]


def test_needed_objects_follow_the_textbook() -> None:
    """One seed: n = ((t + z) · deviation / effect)², with the upper 80 % limit of a deviation from 30 objects."""
    of = estimate(table(30, 1, 1.0, 0.0))
    limit = math.sqrt(29 / scipy.stats.chi2.ppf(0.2, 29))
    n = ((1.96 + 0.8416) * limit / 0.2) ** 2
    assert needed(of, 0.2).seeds is None
    assert needed(of, 0.2).objects == pytest.approx(n, rel=0.02)


def test_objects_cannot_make_up_for_seeds_nor_seeds_for_objects() -> None:
    noisy = estimate(table(100, 2, 0.1, 0.5), table(100, 2, 0.0, 0.5))
    assert needed(noisy, 0.2).objects is None
    assert needed(noisy, 0.2).seeds is not None
    both = estimate(table(6, 2, 2.0, 0.5), table(6, 2, 0.0, 0.5))
    need = needed(both, 0.5)
    assert (need.objects, need.seeds) == (None, None)
    assert need.both is not None
    n, s = need.both
    # The planned table shows the effect: its own numbers of objects, at its seeds, are not larger.
    planned = estimate(table(n, s, 2.0, 0.5), table(n, s, 0.0, 0.5))
    found = needed(planned, 0.5).objects
    assert found is not None
    assert found <= n
    few = estimate(table(MIN_OBJECTS - 1, 3, 0.1, 0.005), table(MIN_OBJECTS - 1, 3, 0.0, 0.005))
    assert needed(few, 0.2).seeds is None, "no number of seeds replaces objects"
    assert needed(few, 0.2).objects is not None
    spread = estimate(table(6, 4, 2.0, 0.01), table(6, 4, 0.0, 0.01))
    assert needed(spread, 0.2).seeds is None
    assert needed(spread, 0.2).objects is not None


@given(st.floats(0.05, 3), st.floats(0, 1), st.floats(0.1, 2))
@settings(max_examples=25, deadline=None)
def test_larger_effects_need_no_more(spread: float, noise: float, effect: float) -> None:
    of = estimate(table(8, 3, spread, noise), table(8, 3, 0.0, noise))
    small, large = needed(of, effect), needed(of, 2 * effect)
    for a, b in ((small.objects, large.objects), (small.seeds, large.seeds)):
        assert a is None or (b is not None and b <= a)


def covered(ends: tuple[np.ndarray, np.ndarray]) -> float:
    return float(((ends[0] <= 0) & (ends[1] >= 0)).mean())


def test_coverage_where_the_percentile_bootstrap_fails() -> None:
    """Skewed differences of five objects: the earlier percentile bootstrap covers far less than 93 %."""
    random = np.random.default_rng(1)
    values = random.exponential(size=(1500, 1, 5)) - 1
    resampled = values[:, 0][:, random.integers(0, 5, (400, 5))].mean(-1)
    assert covered(tuple(np.quantile(resampled, (0.025, 0.975), axis=1))) < 0.85
    assert covered(interval(estimate(values))) > 0.92
    of: Estimate = estimate(values[:, :, :2])
    assert np.isnan(interval(of)).all(), "with two objects, nothing is said"


@pytest.mark.parametrize("seeds", [(2, 2), (3, 3), (2, 5)])
def test_coverage_with_training_noise(seeds: tuple[int, int]) -> None:
    """Where seeds matter most; intervals over objects alone cover next to nothing."""
    random = np.random.default_rng(2)
    first, second = (
        noise * random.normal(size=(1500, s, 1)) + 0.3 * random.normal(size=(1500, s, 20))
        for s, noise in zip(seeds, (1.0, 0.25), strict=True)
    )
    of = estimate(first, second)
    assert covered(interval(of)) >= 0.94
    assert covered(interval(estimate(first[:, :1], second[:, :1]))) < 0.4
    if seeds == (2, 5):
        parts, freedom = np.array([of.objects, *of.seeds]), np.array([[19], [1], [4]])
        error = np.sqrt(parts.sum(0))
        reach = scipy.stats.t.ppf(0.975, parts.sum(0) ** 2 / (parts**2 / freedom).sum(0)) * error
        assert covered((of.mean - reach, of.mean + reach)) < 0.92, "Satterthwaite's degrees of freedom are not enough"
