"""Measured values of objects and seeds, and made-up populations with the same variance components."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from z1g.core.files import read_json
from z1g.report.statistics import Array, estimate

METHODS = 5
"""Methods of a simulated table: four differences to the first one."""
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


@dataclass(frozen=True)
class Components:
    """Standard deviation of the objects' difference between two methods, and those of seeds and rest in units of it."""

    unit: float
    seed: float
    rest: float


@dataclass(frozen=True)
class Population:
    """Draws values [R, K, S, N] of K methods without any difference; `seed_effects` [R, K, S, 1] are part of them."""

    name: str
    draw: Callable[[np.random.Generator, int, int, int], tuple[Array, Array]]


def measured() -> dict[str, Any]:
    """The content of `measured.json`: values by metric, method, seed and object."""
    with resources.as_file(resources.files("z1g.bench") / "measured.json") as path:
        content: dict[str, Any] = read_json(path)
    return content


def components(metric: dict[str, list[list[float]]]) -> Components:
    """Variance components of a metric: means over all pairs of methods that were trained more than once."""
    often = [np.array(values) for values in metric.values() if len(values) > 1]
    found = [estimate(a, b) for a, b in itertools.combinations(often, 2)]
    objects = np.mean([float(one.object_variance) for one in found])
    seeds = np.mean([float(v) for one in found for v in one.seed_variances])
    rest = np.mean([float(v) for one in found for v in one.rest_variances])
    return Components(float(np.sqrt(objects)), float(np.sqrt(seeds / objects)), float(np.sqrt(rest / objects)))


def resampled(name: str, metric: dict[str, list[list[float]]], scales: Components) -> Population:
    """Measured objects and residuals, drawn with replacement; normal seeds of the measured variance.

    All methods' values of an object stay together, so methods are as correlated as they were measured to be. Objects
    are smoothed by normal noise of their own covariance, with Silverman's bandwidth (Biometrika 74:469, 1987), because
    a few values drawn again and again would be a population of ties. Seeds have a quarter of the variance in every
    second method.
    """
    levels = np.array([np.mean(values, axis=0) for values in metric.values()])
    levels -= levels.mean(1, keepdims=True)
    residuals = np.concatenate([_residuals(np.array(v)) for v in metric.values() if len(v) > 1]) / scales.unit
    n = levels.shape[1]
    width = (4 / (3 * n)) ** 0.2

    def draw(random: np.random.Generator, runs: int, seeds: int, objects: int) -> tuple[Array, Array]:
        picked = random.integers(0, n, (runs, objects))
        noise = levels @ random.normal(size=(runs, n, objects)) / np.sqrt(n)
        own = (levels[:, picked].transpose(1, 0, 2) + width * noise) / np.sqrt(1 + width**2) / scales.unit  # [R, K, N]
        rest = random.choice(residuals, (runs, len(levels), seeds, objects))
        return _joined(random, own, rest, scales.seed, normal)

    return Population(name, draw)


def assumed(name: str, shape: Draw, seed_shape: Draw, scales: Components) -> Population:
    """Made-up objects: the first method's have the shape, the others' spread little, so all differences have the shape.

    Object effects that all methods share are three times as large. Seeds have the measured variance, or a quarter of
    it in every second method.
    """

    def draw(random: np.random.Generator, runs: int, seeds: int, objects: int) -> tuple[Array, Array]:
        shared = 3 * normal(random, (runs, 1, objects))
        own = 0.2 * normal(random, (runs, METHODS, objects))
        own[:, 0] = shape(random, (runs, objects))
        rest = scales.rest * normal(random, (runs, METHODS, seeds, objects))
        return _joined(random, shared + own, rest, scales.seed, seed_shape)

    return Population(name, draw)


def normal(random: np.random.Generator, size: tuple[int, ...]) -> Array:
    """Normal values."""
    return random.normal(size=size)


def lognormal(random: np.random.Generator, size: tuple[int, ...]) -> Array:
    """Lognormal values of skewness 1.75 with mean 0 and variance 1."""
    values = random.lognormal(0, 0.5, size)
    scaled: Array = (values - np.exp(0.125)) / np.sqrt((np.exp(0.25) - 1) * np.exp(0.25))
    return scaled


def long_tailed(random: np.random.Generator, size: tuple[int, ...]) -> Array:
    """Lognormal values of skewness 6.2 with mean 0 and variance 1."""
    e = np.e
    scaled: Array = (random.lognormal(0, 1, size) - np.sqrt(e)) / np.sqrt((e - 1) * e)
    return scaled


def exponential(random: np.random.Generator, size: tuple[int, ...]) -> Array:
    """Exponential values of skewness −2 with mean 0 and variance 1."""
    values: Array = 1 - random.exponential(size=size)
    return values


def student(random: np.random.Generator, size: tuple[int, ...]) -> Array:
    """Values of Student's t with three degrees of freedom, variance 1: outliers on both sides."""
    values: Array = random.standard_t(3, size) / np.sqrt(3)
    return values


def failures(random: np.random.Generator, size: tuple[int, ...]) -> Array:
    """Normal values of which one in ten is four standard deviations lower; mean 0, variance 1."""
    failed = random.random(size) < 0.1
    values: Array = (random.normal(size=size) - 4 * failed + 0.4) / np.sqrt(1 + 16 * 0.09)
    return values


def _residuals(values: Array) -> Array:
    """What object and seed do not explain [S·N], scaled up for the degrees of freedom that they took."""
    s, n = values.shape
    left = values - values.mean(1, keepdims=True) - values.mean(0, keepdims=True) + values.mean()
    scaled: Array = (left * np.sqrt(s * n / ((s - 1) * (n - 1)))).ravel()
    return scaled


def _joined(random: np.random.Generator, own: Array, rest: Array, seed: float, seed_shape: Draw) -> tuple[Array, Array]:
    effects = seed * seed_shape(random, (*rest.shape[:3], 1))
    effects[:, 1::2] /= 2
    return own[:, :, None, :] + effects + rest, effects
