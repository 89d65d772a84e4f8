"""Coverage of intervals and rates of false verdicts, simulated with the functions that judge results."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from z1g.bench.measured import (
    METHODS,
    Population,
    assumed,
    components,
    exponential,
    failures,
    lognormal,
    long_tailed,
    measured,
    normal,
    resampled,
    student,
)
from z1g.core.progress import track
from z1g.report.statistics import (
    ALPHA,
    MIN_OBJECTS,
    MIN_SEEDS,
    Array,
    Estimate,
    behind_the_best,
    estimate,
    holm,
    interval,
)
from z1g.report.verdicts import p_of_pairs

ASSUMED = {
    "normal": (normal, normal),
    "skewed": (lognormal, normal),
    "very skewed": (exponential, exponential),
    "heavy tails": (student, student),
    "failures": (failures, normal),
}


def measure(objects: Sequence[int], seeds: Sequence[int], runs: int, seed: int) -> dict[str, Any]:
    """Simulate tables of five methods without any difference, for all numbers of objects and seeds.

    Returns one row per population, number of objects and number of seeds. `coverage` is that of the 95 % interval of a
    difference to the first method, the lowest of the four, for the methods or, with one seed, for the trained models.
    Where no interval is given, it is None. `withheld` is what the interval would cover of the methods' difference, if
    it were given nevertheless. `false` is the rate of false verdicts on one difference, the highest of the four,
    `family` that of any false verdict among them after Holm's correction, `best_lost` how often the truly best method
    is said to be worse than another. `one_source` has the coverage of means of objects without other noise.
    """
    populations = _populations()
    cells = list(itertools.product(populations, objects, seeds))
    rows = []
    for index, (population, n, s) in enumerate(track(cells, "statistics", len(cells))):
        random = np.random.default_rng([seed, index])
        rows.append({"population": population.name, "objects": n, "seeds": s, **_cell(population, random, runs, s, n)})
    about = {"runs": runs, "seed": seed, "methods": METHODS, "measured": measured()["about"]}
    return {**about, "rows": rows, "one_source": _one_source(objects, runs, seed)}


def _one_source(objects: Sequence[int], runs: int, seed: int) -> list[dict[str, Any]]:
    """Coverage of the interval of a mean of objects without any other noise, given also where it is withheld."""
    shapes = {**{name: shape for name, (shape, _) in ASSUMED.items()}, "long tail": long_tailed}
    rows = []
    for index, (name, n) in enumerate(itertools.product(shapes, objects)):
        values = shapes[name](np.random.default_rng([seed, index, 1]), (runs, 1, n))
        rows.append({"shape": name, "objects": n, "coverage": _covered(estimate(values), np.zeros(runs))})
    return rows


def _populations() -> list[Population]:
    data = measured()["metrics"]
    found = [resampled(f"measured {name}", values, components(values)) for name, values in data.items()]
    scales = components(data["psnr"])
    return found + [assumed(name, *shapes, scales) for name, shapes in ASSUMED.items()]


def _cell(population: Population, random: np.random.Generator, runs: int, seeds: int, objects: int) -> dict[str, Any]:
    values, effects = population.draw(random, runs, seeds, objects)
    methods = [values[:, k] for k in range(values.shape[1])]
    difference = estimate(methods[1], methods[0])
    answer = "too few objects" if objects < MIN_OBJECTS else "models" if seeds < MIN_SEEDS else "methods"
    row: dict[str, Any] = {"answer": answer, "coverage": None, "mean_coverage": None, "withheld": None}
    if answer != "methods":
        row["withheld"] = _covered(difference, np.zeros(runs))
    if answer == "too few objects":
        return {**row, "false": 0.0, "false_better": 0.0, "false_worse": 0.0, "family": 0.0, "best_lost": 0.0}
    # With one seed, the truth is about the trained models: their seeds' effects are part of it.
    known = effects[..., 0].mean(-1) if answer == "models" else np.zeros(values.shape[:2])
    others = range(1, len(methods))
    row["coverage"] = min(_covered(estimate(methods[k], methods[0]), known[:, k] - known[:, 0]) for k in others)
    row["mean_coverage"] = _covered(estimate(methods[0]), known[:, 0])
    centered = [method - known[:, k, None, None] for k, method in enumerate(methods)]
    p = p_of_pairs(centered)
    means = np.stack([method.mean((-1, -2)) for method in centered], -1)
    wrong = p[:, 1:, 0] <= ALPHA
    higher = wrong & (means[:, 1:] > means[:, :1])
    family = holm(p[:, 1:, 0]) <= ALPHA
    return {
        **row,
        "false": float(wrong.mean(0).max()),
        "false_better": float(higher.mean(0).max()),
        "false_worse": float((wrong & ~higher).mean(0).max()),
        "family": float(family.any(-1).mean()),
        "best_lost": float(behind_the_best(means, p)[:, 0].mean()),
    }


def _covered(of: Estimate, truth: Array) -> float:
    """Share of intervals that contain the truth."""
    low, high = interval(of, minimum=2)
    return float(((low <= truth) & (truth <= high)).mean())
