"""Placing points on a surface by a similarity, from where they are: iterative closest points with scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ITERATIONS = 50
MOST = 4000
"""Points of each side by which the similarity is found."""
KEPT = 0.9
"""Fraction of the nearest pairs that count: the others may be of parts that one side lacks."""
STILL = 1e-6
"""Change of the mean distance at which it ends, normalized units."""


@dataclass(frozen=True)
class Similarity:
    """p' = scale · rotation · p + offset."""

    scale: float
    rotation: Array
    offset: Array

    def of(self, points: Array) -> Array:
        """The points [N,3], mapped."""
        mapped: Array = self.scale * points @ self.rotation.T + self.offset
        return mapped


IDENTITY = Similarity(1.0, np.eye(3), np.zeros(3))


def fit_similarity(source: Array, target: Array) -> Similarity:
    """The similarity that maps source [N,3] to target [N,3] with least squares (Umeyama, PAMI 13:376, 1991)."""
    middle, aim = source.mean(axis=0), target.mean(axis=0)
    centered, wanted = source - middle, target - aim
    spread = (centered**2).sum()
    if not spread > 0:
        return IDENTITY
    u, values, vt = np.linalg.svd(wanted.T @ centered)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = float((values * sign).sum() / spread)
    return Similarity(scale, rotation, aim - scale * rotation @ middle)


def aligned(points: Array, surface: Array) -> Similarity:
    """The similarity that places points [N,3] on a surface, given as points [M,3]; the identity if none is better.

    Pairs of nearest points in both directions; the farthest tenth is left out. Local: a wrong turn stays wrong.
    """
    from scipy.spatial import cKDTree

    draw = np.random.default_rng(0)
    source, target = (x[draw.permutation(len(x))[:MOST]] for x in (points, surface))
    tree, found, best = cKDTree(target), IDENTITY, IDENTITY
    least = before = np.inf
    for _ in range(ITERATIONS):
        placed = found.of(source)
        to_target, forward = tree.query(placed)
        to_source, backward = cKDTree(placed).query(target)
        distance = _kept_mean(to_target) + _kept_mean(to_source)
        if distance < least:
            least, best = distance, found
        if abs(before - distance) < STILL:
            break
        before = distance
        near, far = to_target <= np.quantile(to_target, KEPT), to_source <= np.quantile(to_source, KEPT)
        found = fit_similarity(
            np.concatenate([source[near], source[backward[far]]]), np.concatenate([target[forward[near]], target[far]])
        )
    return best


def _kept_mean(distances: Array) -> float:
    return float(np.sort(distances)[: max(1, int(KEPT * len(distances)))].mean())
