"""Names of runs: unique, readable, and safe for files and shells."""

import re
import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from z1g.config.run_names import MAX_POINT, SAFE, point_names, run_name, short_keys, value_word
from z1g.config.sweep import plain


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (1e-4, "1e-4"), (3e-4, "3e-4"), (0.01, "0.01"), (0.001, "1e-3"), (1.25e-5, "1.25e-5"), (2.0, "2"), (2, "2"),
        (0.5, "0.5"), (-0.25, "-0.25"), (1e6, "1e6"), (2000, "2000"), (1e22, "1e22"), (True, "true"), (None, "null"),
        ("bf16", "bf16"), ({"kind": "encoder"}, "encoder"), ([32, 64], "32+64"), ([], "empty"), (float("nan"), "nan"),
    ],
)  # fmt: skip
def test_words_of_values(value: Any, word: str) -> None:
    assert value_word(value) == word


@pytest.mark.parametrize(
    ("paths", "short"),
    [
        (["unet.train.optimizer.lr", "infer.guidance"], ["lr", "guidance"]),
        (["unet.train.steps", "autodecoder.train.steps"], ["unet.train.steps", "autodecoder.train.steps"]),
        (["unet.train.steps", "infer.steps"], ["train.steps", "infer.steps"]),
        (["a.codes", "b.codes.lr", "c.lr"], ["codes", "codes.lr", "c.lr"]),
        (["x", "a.x"], ["x", "a.x"]),
    ],
)
def test_keys_are_the_shortest_last_parts_that_tell_them_apart(paths: list[str], short: list[str]) -> None:
    assert list(short_keys(paths).values()) == short


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_words_of_numbers_read_back_as_the_number(value: float) -> None:
    word = value_word(value)
    assert float(word) == value
    assert len(word) <= len(repr(value)) + 1


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([1.0, 0.5, 1e-4, float("inf")])
    | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from(["unet.train.optimizer.lr", "infer.guidance", "autodecoder.losses.a b;c.weight", "x.lr", "é.lr"])


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(KEYS, VALUES, min_size=1, max_size=5), min_size=1, max_size=8, unique_by=plain))
def test_names_are_safe_and_differ_where_points_do(points: list[dict[str, Any]]) -> None:
    names = point_names(points)
    assert len(set(names)) == len(points)
    assert names == point_names(points), "a name depends on its sweep only"
    for name in names:
        run = run_name("study", name, 3, 1)
        assert SAFE.fullmatch(run), run
        assert shlex.quote(run.replace(",", "")) == run.replace(",", ""), "a shell takes it as it is; so it does commas"
        assert len(name) <= MAX_POINT + 5
        assert run.split("@") == ["study", name, "fold=3", "seed=1"], "the parts can be told apart"
        assert re.fullmatch(r"[^/]+", run), "the wildcard of Snakemake"


def test_runs_of_an_arm_sort_together() -> None:
    arms = ["a@lr=1", "a@lr=10", "a@lr=1,guidance=2", "a", "a-b"]
    names = sorted(run_name(arm, None, None, seed) for arm in arms for seed in range(12))
    order = [name.rpartition("@")[0] for name in names]
    assert [arm for i, arm in enumerate(order) if i == 0 or order[i - 1] != arm] == sorted(set(order), key=order.index)


def test_long_points_keep_their_first_values_and_differ() -> None:
    points = [{f"section{i}.option_with_a_name": i + n for i in range(12)} for n in range(2)]
    first, second = point_names(points)
    assert first.startswith("section0.option_with_a_name=0,section1.option_with_a_name=1,")
    assert re.search(r",point=[0-9a-f]{8}$", first)
    assert first != second
