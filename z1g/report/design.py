"""Linear models of an arm's mean in its factors: of every cell of a full grid, else in polynomials of low degree."""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations, product

import numpy as np
import numpy.typing as npt

from z1g.report.studies import Factor
from z1g.report.variance_shares import Array, Model

MAX_CELLS = 400
"""Largest grid with a column for every cell."""
DEGREES = ((3, 2, 3), (2, 2, 3), (2, 1, 3), (1, 1, 2), (1, 0, 2))
"""Degrees of single factors and of products of two, and how many arms a column needs; the richest first."""
SPARE = 4
"""Fewest degrees of freedom from which an error is estimated."""

Levels = npt.NDArray[np.intp]


def full_grid(factors: Sequence[Factor], levels: Levels) -> Model | None:
    """A saturated model if the arms [A, F] are all combinations of all levels, else None.

    Its term `()` has the columns of all products of three and more factors.
    """
    sizes = [len(factor.levels) for factor in factors]
    cells = int(np.prod(sizes))
    if cells > MAX_CELLS or len(levels) != cells or len({tuple(row) for row in levels}) != cells:
        return None
    bases = [_basis(None, np.full(size, 1 / size), size - 1) for size in sizes]
    subsets = chain.from_iterable(combinations(range(len(factors)), order) for order in range(1, len(factors) + 1))
    model = _model(bases, levels, [(term, None) for term in subsets])
    terms = {term: columns for term, columns in model.terms.items() if len(term) <= 2}
    higher = [columns for term, columns in model.terms.items() if len(term) > 2]
    if higher:
        terms[()] = slice(higher[0].start, higher[-1].stop)
    return Model(model.columns, terms)


def polynomial(factors: Sequence[Factor], levels: Levels) -> Model | None:
    """The richest polynomial of `DEGREES` for which there are enough arms, or None.

    Values of a factor are scaled to their range, on a logarithmic axis if the factor has one. Categories get a column
    for each level but one. Columns are orthonormal under the product of the factors' frequencies among the arms.
    """
    weights = [np.bincount(levels[:, i]) / len(levels) for i in range(len(factors))]
    for single, pair, arms_per_column in DEGREES:
        bases = [_basis(_scaled(factor), w, single) for factor, w in zip(factors, weights, strict=True)]
        terms: list[tuple[tuple[int, ...], int | None]] = [((i,), None) for i in range(len(factors))]
        if pair:
            terms += [(term, pair) for term in combinations(range(len(factors)), 2)]
        model = _model(bases, levels, terms)
        n_arms, n_columns = model.columns.shape
        enough = n_arms >= max(arms_per_column * n_columns, n_columns + SPARE)
        if enough and np.linalg.matrix_rank(model.columns) == n_columns:
            return model
    return None


def _scaled(factor: Factor) -> Array | None:
    """The factor's values from -1 to 1, or None for categories."""
    if factor.numbers is None:
        return None
    return np.array([2 * factor.position(value) - 1 for value in factor.numbers])


class _Basis:
    """Columns [L, d] of a factor's levels, and the degree [d] of each; those of categories have degree 1."""

    def __init__(self, columns: Array, degrees: Sequence[int]) -> None:
        self.columns, self.degrees = columns, tuple(degrees)


def _basis(values: Array | None, weights: Array, degree: int) -> _Basis:
    """Columns that are orthonormal to the constant and to each other under the levels' weights."""
    size = len(weights)
    if values is None:
        raw, degrees = np.column_stack([np.ones(size), np.eye(size)[:, 1:]]), [1] * (size - 1)
    else:
        degree = min(degree, size - 1)
        raw, degrees = np.vander(values, degree + 1, increasing=True), list(range(1, degree + 1))
    root = np.sqrt(weights)[:, None]
    orthonormal, _ = np.linalg.qr(root * raw)
    return _Basis((orthonormal / root)[:, 1:], degrees)


def _model(bases: list[_Basis], levels: Levels, terms: list[tuple[tuple[int, ...], int | None]]) -> Model:
    """Columns of the constant and of all terms; a term's products have at most the given sum of degrees plus one."""
    blocks, slices, at = [np.ones((len(levels), 1))], {}, 1
    for term, limit in terms:
        block = np.column_stack(list(_products(bases, levels, term, limit)))
        blocks.append(block)
        slices[term] = slice(at, at + block.shape[1])
        at += block.shape[1]
    return Model(np.column_stack(blocks), slices)


def _products(bases: list[_Basis], levels: Levels, term: tuple[int, ...], limit: int | None) -> Iterator[Array]:
    for choice in product(*(range(len(bases[i].degrees)) for i in term)):
        degrees = [bases[i].degrees[column] for i, column in zip(term, choice, strict=True)]
        if limit is None or sum(degrees) <= limit + 1:
            columns = [bases[i].columns[levels[:, i], column] for i, column in zip(term, choice, strict=True)]
            yield np.prod(columns, axis=0)
