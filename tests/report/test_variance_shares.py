"""Shares of variance against brute-force decompositions, classical tests, and simulations with known shares."""

from itertools import chain, combinations, product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from z1g.report.design import full_grid, polynomial
from z1g.report.studies import Factor
from z1g.report.variance_shares import Observed, Shares, shares

Array = npt.NDArray[np.float64]


def factors_of(values: list[list[float]]) -> list[Factor]:
    return [Factor(f"f{i}", tuple(map(str, v)), tuple(map(float, v))) for i, v in enumerate(values)]


def sobol(table: Array, weights: list[Array]) -> dict[tuple[int, ...], float]:
    """Variance of every term of a function on a grid under independent weights, by inclusion and exclusion."""
    indices = range(table.ndim)
    subsets = list(chain.from_iterable(combinations(indices, n) for n in range(table.ndim + 1)))

    def expected(given_indices: tuple[int, ...], at: tuple[int, ...]) -> float:
        total = 0.0
        for cell in np.ndindex(*table.shape):
            if all(cell[i] == at[i] for i in given_indices):
                total += table[cell] * np.prod([weights[i][cell[i]] for i in indices if i not in given_indices])
        return total

    variances = {}
    for subset in subsets[1:]:
        variance = 0.0
        for at in product(*(range(table.shape[i]) if i in subset else [0] for i in indices)):
            inner = [part for part in subsets if set(part) <= set(subset)]
            term = sum((-1) ** (len(subset) - len(part)) * expected(part, at) for part in inner)
            variance += term**2 * np.prod([weights[i][at[i]] for i in subset])
        variances[subset] = float(variance)
    return variances


def grid_shares(table: Array, noise: Array, seed: int = 0) -> Shares:
    """Shares of a full grid from the cells' means and deviations [cells, replicates]."""
    factors = factors_of([list(range(size)) for size in table.shape])
    levels = np.array(list(np.ndindex(*table.shape)), dtype=np.intp)
    model = full_grid(factors, levels)
    assert model is not None
    values = table.reshape(-1, 1) + noise
    arm_of = np.repeat(np.arange(len(levels)), noise.shape[1])
    found = shares(model, Observed.of(values.ravel(), arm_of), replicated=True, seed=seed)
    assert found is not None
    return found


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2), (5,)])
def test_a_grid_without_noise_is_decomposed_exactly(shape: tuple[int, ...]) -> None:
    table = np.random.default_rng(3).normal(size=shape)
    found = grid_shares(table, np.zeros((table.size, 2)))
    truth = sobol(table, [np.full(size, 1 / size) for size in shape])
    total = sum(truth.values())
    for term, share in found.terms.items():
        expected = truth[term] if term else sum(value for key, value in truth.items() if len(key) > 2)
        assert share.value == pytest.approx(expected / total, abs=1e-12)
        assert (share.low, share.high) == pytest.approx((share.value, share.value), abs=1e-9)
    assert found.replicates is not None
    assert found.replicates.value == pytest.approx(0, abs=1e-12)


def test_one_factor_has_the_p_value_of_a_one_way_analysis() -> None:
    values = np.random.default_rng(5).normal(size=(4, 3)) + np.array([[0.0], [0.5], [1.0], [0.2]])
    means = values.mean(axis=1)
    found = grid_shares(means, values - means[:, None])
    assert found.terms[0,].p == pytest.approx(stats.f_oneway(*values).pvalue, rel=1e-9)


def test_two_factors_have_the_classical_sums_of_squares() -> None:
    """Variance components and p values of a balanced design, from sums over all runs."""
    a, b, n = 4, 3, 3
    values = np.random.default_rng(6).normal(size=(a, b, n)) + np.arange(a)[:, None, None] * 0.7
    cells, rows, columns, grand = values.mean(2), values.mean((1, 2)), values.mean((0, 2)), values.mean()
    squares = {
        (0,): (b * n * (rows - grand) ** 2).sum(),
        (1,): (a * n * (columns - grand) ** 2).sum(),
        (0, 1): (n * (cells - rows[:, None] - columns[None] + grand) ** 2).sum(),
    }
    freedom = {(0,): a - 1, (1,): b - 1, (0, 1): (a - 1) * (b - 1)}
    error = ((values - cells[..., None]) ** 2).sum() / (a * b * (n - 1))
    components = {term: max(0.0, (squares[term] - freedom[term] * error) / (a * b * n)) for term in squares}
    total = sum(components.values()) + error
    found = grid_shares(cells, (values - cells[..., None]).reshape(-1, n))
    assert found.replicates is not None
    assert found.replicates.value == pytest.approx(error / total)
    for term, share in found.terms.items():
        assert share.value == pytest.approx(components[term] / total)
        chance = stats.f.sf(squares[term] / freedom[term] / error, freedom[term], a * b * (n - 1))
        assert share.p == pytest.approx(chance, rel=1e-9)


def random_points(
    n: int, n_factors: int, seed: int, decimals: int = 4
) -> tuple[list[Factor], npt.NDArray[np.intp], Array]:
    """Factors, level numbers [n, F] and values [n, F] of points in the unit cube, rounded."""
    points = np.random.default_rng(seed).random((n, n_factors)).round(decimals)
    unique = [np.unique(points[:, i], return_inverse=True) for i in range(n_factors)]
    levels = np.stack([inverse for _, inverse in unique], axis=1)
    return factors_of([list(values) for values, _ in unique]), levels, points


@pytest.mark.parametrize("decimals", [1, 4])
def test_a_polynomial_of_random_points_is_decomposed_exactly(decimals: int) -> None:
    """The reference evaluates the function at all combinations of the factors' values.

    With one decimal, values are unequally frequent.
    """
    factors, levels, points = random_points(24, 3, seed=1, decimals=decimals)

    def function(x: Array) -> Array:
        return 2 * x[..., 0] - x[..., 1] + 3 * (x[..., 0] - 0.4) * (x[..., 2] - 0.6)

    model = polynomial(factors, levels)
    assert model is not None
    found = shares(model, Observed.of(function(points), np.arange(24)), replicated=False)
    assert found is not None
    mesh = np.stack(np.meshgrid(*(factor.numbers for factor in factors), indexing="ij"), axis=-1)
    weights = [np.bincount(levels[:, i]) / 24 for i in range(3)]
    truth = small_sobol(function(mesh), weights)
    for term, share in found.terms.items():
        assert share.value == pytest.approx(truth[term] / sum(truth.values()), abs=1e-9)
    assert found.replicates is None


def small_sobol(table: Array, weights: list[Array]) -> dict[tuple[int, ...], float]:
    """As `sobol` for three factors and terms of at most two, in sums over axes."""
    everything = np.einsum("abc,a,b,c", table, *weights)
    first, second, third = weights
    single = [
        np.einsum("abc,b,c->a", table, second, third),
        np.einsum("abc,a,c->b", table, first, third),
        np.einsum("abc,a,b->c", table, first, second),
    ]
    double = {
        (0, 1): np.einsum("abc,c->ab", table, third),
        (0, 2): np.einsum("abc,b->ac", table, second),
        (1, 2): np.einsum("abc,a->bc", table, first),
    }
    variances: dict[tuple[int, ...], float] = {
        (i,): float(weights[i] @ (single[i] - everything) ** 2) for i in range(3)
    }
    for (i, j), mean in double.items():
        rest = mean - single[i][:, None] - single[j][None] + everything
        variances[i, j] = float(weights[i] @ rest**2 @ weights[j])
    return variances


@settings(max_examples=8, deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(1e-2, 1e2), st.integers(0, 1000))
def test_shares_ignore_unit_and_origin(shift: float, scale: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    table, noise = draw.normal(size=(3, 2)), draw.normal(size=(6, 3))
    one, other = grid_shares(table, noise), grid_shares(shift + scale * table, scale * noise)
    for term in one.terms:
        a, b = one.terms[term], other.terms[term]
        assert (a.value, a.low, a.high, a.p) == pytest.approx((b.value, b.low, b.high, b.p), abs=1e-6)


def test_equal_values_have_no_shares() -> None:
    factors, levels, _ = random_points(24, 2, seed=2)
    model = polynomial(factors, levels)
    assert model is not None
    assert shares(model, Observed.of(np.full(24, 3.5), np.arange(24)), replicated=False) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["additive", "xor", "noise"])
def test_simulated_studies_have_their_known_shares(name: str) -> None:
    """Means of 200 studies of 12 points and 3 replicates; intervals cover, and noise is rarely taken for an effect."""
    first, second = np.meshgrid(np.arange(4.0), np.arange(3.0), indexing="ij")
    table = {
        "additive": first - 0.4 * second,
        "xor": np.where((first >= 2) == (second >= 1), 1.0, -1.0),
        "noise": np.zeros((4, 3)),
    }[name]
    draw, sigma = np.random.default_rng(17), 0.7
    truth = sobol(table, [np.full(4, 1 / 4), np.full(3, 1 / 3)])
    total = sum(truth.values()) + sigma**2
    studies = [grid_shares(table, sigma * draw.normal(size=(12, 3)), seed=i) for i in range(200)]
    for term, variance in truth.items():
        found = [study.terms[term] for study in studies]
        known = variance / total
        mean = np.mean([share.value for share in found])
        assert mean == pytest.approx(known, abs=0.05), "estimates below zero are cut, which adds up to 0.04 to a zero"
        assert np.mean([share.low - 1e-9 <= known <= share.high for share in found]) >= 0.88
        if variance < 1e-12:
            assert np.mean([share.p < 0.05 for share in found if share.p is not None]) <= 0.1
            assert np.mean([share.low > 0 for share in found]) <= 0.06


@pytest.mark.slow
def test_simulated_searches_find_an_interaction() -> None:
    """60 random points of four factors: half the variance is a product of two factors, 0.1 of it is noise."""
    found = []
    for seed in range(16):
        factors, levels, x = random_points(60, 4, seed)
        model = polynomial(factors, levels)
        assert model is not None
        signal = np.sqrt(6) * (x[:, 0] - 0.5) + np.sqrt(72) * (x[:, 1] - 0.5) * (x[:, 2] - 0.5)
        noise = np.sqrt(1 / 9) * np.random.default_rng(seed).normal(size=60)
        result = shares(model, Observed.of(signal + noise, np.arange(60)), replicated=False, seed=seed)
        assert result is not None
        assert result.unexplained is not None
        terms = result.terms
        found.append([terms[0,].value, terms[1, 2].value, result.unexplained.value, terms[3,].value, terms[0, 3].value])
    assert np.mean(found, axis=0) == pytest.approx([0.45, 0.45, 0.1, 0, 0], abs=0.06)
