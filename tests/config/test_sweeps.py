"""Points of sweeps: how many, which, drawn how; and mistakes, named where they are."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from z1g.config.entries import read_header
from z1g.config.header import Header, header_values
from z1g.config.sweep import Distribution, Point, plain, points
from z1g.config.yaml_file import YamlFile, read_yaml
from z1g.core.errors import UserError

FILE = YamlFile(Path("study.yaml"), {})
PATHS = ["unet.train.optimizer.lr", "infer.guidance", "infer.steps", "unet.condition_dropout"]


def found(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """Values of all points."""
    header = Header.model_validate({"sweep": sweep})
    assert header.sweep is not None
    return [point.values for point in points(header.sweep, FILE)]


def expanded(file: YamlFile) -> list[Point]:
    """Points of a file."""
    header = read_header(file, Header, header_values(file.values))
    assert header.sweep is not None
    return points(header.sweep, file)


def complaint(tmp_path: Path, text: str) -> str:
    """What is said about the header of a file."""
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        expanded(read_yaml(path))
    return str(caught.value).replace(f"{tmp_path}/", "")


AXES = st.dictionaries(
    st.sampled_from(PATHS), st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True), min_size=1
)


@settings(max_examples=60, deadline=None)
@given(AXES)
def test_a_grid_has_every_combination_once_in_order(axes: dict[str, list[int]]) -> None:
    expected = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    assert found({"grid": axes}) == expected
    assert len(expected) == math.prod(map(len, axes.values()))


@settings(max_examples=60, deadline=None)
@given(AXES, st.integers(1, 4))
def test_ways_together_are_all_pairs_of_their_points(axes: dict[str, list[int]], n: int) -> None:
    other = {"autodecoder.views": list(range(1, n + 1)), "autodecoder.test_steps": list(range(2, n + 2))}
    alone = found({"zip": other})
    assert alone == [{"autodecoder.views": i + 1, "autodecoder.test_steps": i + 2} for i in range(n)]
    grid = found({"grid": axes})
    assert found({"grid": axes, "zip": other}) == [{**a, **b} for a in grid for b in alone]
    assert found({"grid": axes, "list": alone}) == [{**a, **b} for a in grid for b in alone]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(0, 5), st.integers(0, 5))
def test_more_random_points_keep_the_first_ones(n: int, more: int, seed: int) -> None:
    def drawn(n: int, **further: Any) -> list[dict[str, Any]]:
        kinds = {"infer.guidance": {"uniform": [1, 8]}, "unet.train.optimizer.lr": {"log_uniform": [1e-5, 1e-2]}}
        return found({"random": {"n": n, "seed": seed, "distributions": {**kinds, **further}}})

    points = drawn(n)
    assert len({plain(point) for point in points}) == n
    assert drawn(n + more)[:n] == points
    wider = drawn(n, **{"infer.steps": {"integers": [5, 500]}})
    assert [{path: point[path] for path in points[0]} for point in wider] == points


def test_draws_have_the_distributions_that_they_are_said_to_have() -> None:
    """Kolmogorov-Smirnov against scipy's distributions; the seed is fixed."""
    kinds = {
        "a.uniform": {"uniform": [2, 5]},
        "a.log": {"log_uniform": [1e-4, 1e-1]},
        "a.whole": {"integers": [3, 7]},
        "a.choice": {"choice": ["x", "y", None]},
    }
    points = found({"random": {"n": 2000, "seed": 1, "distributions": kinds}})
    assert kstest([point["a.uniform"] for point in points], "uniform", args=(2, 3)).pvalue > 0.01
    logs = [math.log10(point["a.log"]) for point in points]
    assert kstest(logs, "uniform", args=(-4, 3)).pvalue > 0.01
    for path, values in (("a.whole", [3, 4, 5, 6, 7]), ("a.choice", ["x", "y", None])):
        counts = [sum(point[path] == value for point in points) for value in values]
        assert sum(counts) == 2000
        share = 1 / len(values)
        assert all(abs(count - 2000 * share) < 4 * math.sqrt(2000 * share * (1 - share)) for count in counts)


@given(st.floats(0, 1, exclude_max=True), st.floats(1e-6, 1e3), st.floats(1.001, 1e4))
def test_draws_stay_within_their_limits_and_are_short(u: float, low: float, factor: float) -> None:
    high = low * factor
    for kind in ("uniform", "log_uniform"):
        value = Distribution.model_validate({kind: [low, high]}).at(u)
        assert low <= value <= high
        if value not in (low, high):
            assert len(f"{value:.12g}".replace(".", "").lstrip("0").split("e")[0]) <= 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sweep: {}\n", "study.yaml:1: sweep: expected at least one of grid, zip, list, random"),
        ("sweep: 3\n", "study.yaml:1: sweep: expected a mapping, got 3"),
        ("sweep:\n  gird: {infer.steps: [1]}\n", 'study.yaml:2: sweep.gird: unknown key; did you mean "grid"?'),
        ("sweep:\n  grid:\n    infer.steps: 3\n", "study.yaml:3: sweep.grid.infer.steps: expected a list, got 3"),
        ("sweep:\n  grid:\n    infer.steps: []\n", "study.yaml:3: sweep.grid.infer.steps: expected at least 1 entry"),
        ("sweep:\n  grid:\n    infer.steps:\n    - 1\n    - 2\n    - 1\n",
         "study.yaml:6: infer.steps: the value 1 appears twice"),
        ("sweep:\n  list:\n  - {infer.steps: 1}\n  - {infer.steps: 1.0}\n", "study.yaml:4: list: a point"),
        ("sweep:\n  zip:\n    infer.steps: [1, 2]\n    infer.seed: [1]\n",
         "study.yaml:1: sweep: zip: all lists need the same number of values, got [1, 2]"),
        ("sweep: {grid: {a.b: [1]}, zip: {a.b: [1]}}\n", "study.yaml:1: sweep: a.b is varied in two ways"),
        ("sweep: {grid: {a..b: [1]}}\n", "study.yaml:1: sweep.grid"),
        ("sweep:\n  random:\n    n: 9\n    distributions: {infer.steps: {integers: [1, 4]}}\n",
         "study.yaml:3: sweep.random.n: the distributions have only about 4 different points, 9 are asked for"),
        ("sweep:\n  random:\n    n: 0\n    distributions: {infer.steps: {integers: [1, 4]}}\n",
         "study.yaml:3: sweep.random.n: expected a number greater than or equal to 1, got 0"),
        ("sweep:\n  random:\n    n: 2\n    distributions:\n      infer.steps: {integer: [1, 4]}\n",
         'study.yaml:5: sweep.random.distributions.infer.steps.integer: unknown key; did you mean "integers"?'),
        ("sweep: {random: {n: 2, distributions: {a: {uniform: [4, 1]}}}}\n",
         "study.yaml:1: sweep.random.distributions.a: uniform: expected a smaller and a larger number, got [4.0, 1.0]"),
        ("sweep: {random: {n: 2, distributions: {a: {log_uniform: [0, 1]}}}}\n",
         "study.yaml:1: sweep.random.distributions.a: log_uniform: expected positive numbers"),
        ("sweep: {random: {n: 2, distributions: {a: {uniform: [-1e308, 1e308]}}}}\n",
         "study.yaml:1: sweep.random.distributions.a: uniform: the limits are too far apart, got [-1e+308, 1e+308]"),
        ("sweep: {random: {n: 2, distributions: {a: {log_uniform: [1e-308, 1e308]}}}}\n",
         "study.yaml:1: sweep.random.distributions.a: log_uniform: the limits are too far apart"),
        ("sweep: {random: {n: true, distributions: {a: {uniform: [0, 1]}}}}\n",
         "study.yaml:1: sweep.random.n: expected a number, got true or false"),
        ("sweep: {random: {n: 2, distributions: {a: {integers: [true, 5]}}}}\n",
         "study.yaml:1: sweep.random.distributions.a.integers.0: expected a number, got true or false"),
        ("sweep: {random: {n: 2, distributions: {a: {uniform: [0, 1], choice: [1]}}}}\n",
         "study.yaml:1: sweep.random.distributions.a: expected one of uniform, log_uniform, integers, choice"),
        (f"sweep: {{grid: {{a: {list(range(200))}, b: {list(range(200))}}}}}\n",
         "study.yaml:1: sweep: 40000 points; at most 10000 are supported"),
    ],
)  # fmt: skip
def test_mistakes_are_named_where_they_are(tmp_path: Path, text: str, expected: str) -> None:
    said = complaint(tmp_path, text)
    assert said.startswith(expected), said
    assert len(said.splitlines()) == 1


def test_points_of_two_ways_join_their_values() -> None:
    both = Point({"a": 1}, {"a": ("x",)}) | Point({"b": 2}, {"b": ("y",)})
    assert both == Point({"a": 1, "b": 2}, {"a": ("x",), "b": ("y",)})
