"""`z1g bench statistics`: its populations have no differences, and its rates are those of the program's verdicts."""

import json

import numpy as np
import pytest

from z1g.bench.measured import (
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
from z1g.bench.statistics import measure
from z1g.cli.main import main


@pytest.mark.parametrize("shape", [normal, lognormal, exponential, student, failures, long_tailed])
def test_shapes_have_mean_zero_and_variance_one(shape) -> None:
    values = shape(np.random.default_rng(0), (400_000,))
    assert values.mean() == pytest.approx(0, abs=0.01)
    assert values.var() == pytest.approx(1, abs=0.15 if shape in (student, long_tailed) else 0.02)
    skewness = {lognormal: 1.75, exponential: -2.0, normal: 0.0, failures: -1.21}
    if shape in skewness:
        assert ((values / values.std()) ** 3).mean() == pytest.approx(skewness[shape], abs=0.1)


@pytest.mark.parametrize("made_up", [True, False])
def test_methods_of_a_population_do_not_differ(made_up: bool) -> None:
    values = measured()["metrics"]["psnr"]
    scales = components(values)
    population = assumed("x", exponential, exponential, scales) if made_up else resampled("x", values, scales)
    drawn, effects = population.draw(np.random.default_rng(0), 20, 40, 500)
    assert drawn.shape == (20, 5, 40, 500)
    means = drawn.mean((0, 2, 3))
    assert means == pytest.approx(np.full(5, means[0]), abs=0.15)
    # Seeds have the measured deviation in the first method, half of it in the second.
    of_seeds = effects[..., 0].std(axis=2, ddof=1).mean(0)
    assert of_seeds[0] == pytest.approx(scales.seed, rel=0.12)
    assert of_seeds[1] == pytest.approx(scales.seed / 2, rel=0.12)
    rest = drawn - effects
    rest -= rest.mean(2, keepdims=True)
    assert rest.std() == pytest.approx(scales.rest, rel=0.1)


def test_components_are_relative_to_the_difference_of_objects() -> None:
    objects = np.resize([1.0, -1.0], 10)
    seeds = np.array([[0.3], [-0.3]])
    found = components(
        {"a": (objects + seeds).tolist(), "b": (0 * objects + seeds).tolist(), "once": [objects.tolist()]}
    )
    assert found.unit == pytest.approx(np.sqrt(10 / 9))
    assert found.seed == pytest.approx(0.3 * np.sqrt(2) / np.sqrt(10 / 9))
    assert found.rest == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_coverage_and_false_verdicts_of_small_tables() -> None:
    runs = 400
    document = measure([3, 5, 10], [1, 3], runs, seed=1)
    assert document == measure([3, 5, 10], [1, 3], runs, seed=1)
    rows = document["rows"]
    assert len(rows) == 9 * 3 * 2
    slack = 2.5 * np.sqrt(0.05 * 0.95 / runs)
    for row in rows:
        if row["objects"] == 3:
            assert row["answer"] == "too few objects"
            assert (row["coverage"], row["false"], row["family"], row["best_lost"]) == (None, 0, 0, 0)
            continue
        assert row["answer"] == ("models" if row["seeds"] == 1 else "methods")
        assert row["coverage"] >= 0.93 - slack, row
        assert row["mean_coverage"] >= 0.93 - slack, row
        assert max(row["false"], row["family"], row["best_lost"]) <= 0.055 + slack, row
        assert row["false_better"] + row["false_worse"] >= row["false"] - 1e-9
        # What is covered and what is called different are two sides of the same interval.
        assert row["coverage"] == pytest.approx(1 - row["false"], abs=1e-9)
    alone = {(row["shape"], row["objects"]): row["coverage"] for row in document["one_source"]}
    assert alone["long tail", 5] < 0.93 < alone["normal", 5]
    assert len(alone) == 6 * 3
    withheld = [row["withheld"] for row in rows if row["objects"] == 10 and row["seeds"] == 1]
    assert min(withheld) < 0.85, "one seed says little about methods"


def test_figures_are_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "statistics", "--objects", "5", "--seeds", "2", "--runs", "20", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["runs"] == 20
    assert {row["population"] for row in document["rows"]} >= {"measured psnr", "very skewed", "heavy tails"}
    assert main(["bench", "statistics", "--objects", "1"]) == 2
    assert "--objects: numbers start at 2" in capsys.readouterr().err
