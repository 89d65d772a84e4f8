"""Decisions of successive halving: which arms a rung keeps, from the files of training."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from z1g.config.prune import Prune
from z1g.core.files import read_json, write_json
from z1g.plan.pruning import Cohort, cohort_file, decision_file, select
from z1g.stages import prune
from z1g.training.rungs import rung_file, write_rung

values = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4),
    st.none() | st.sampled_from([-1.0, 0.0, 20.0, 20.5]) | st.floats(-50, 50),
    min_size=1,
    max_size=30,
)


@given(values, st.floats(0.01, 0.99), st.booleans())
def test_what_is_kept_is_never_worse(table: dict[str, float | None], keep: float, higher: bool) -> None:
    kept, pruned = select(table, keep, higher)
    assert sorted(kept + pruned) == sorted(table)
    assert len(kept) == max(1, int(keep * len(table) + 1e-9))
    for good in kept:
        for bad in pruned:
            first, second = table[good], table[bad]
            assert first is not None or second is None, "a run without a value goes first"
            if first is not None and second is not None:
                assert first >= second if higher else first <= second
            if first == second:
                assert good < bad, "ties go by name"


@given(values, st.randoms())
def test_the_order_of_jobs_does_not_matter(table: dict[str, float | None], shuffled: random.Random) -> None:
    items = list(table.items())
    shuffled.shuffle(items)
    assert select(dict(items), 0.34) == select(table, 0.34)


@pytest.mark.parametrize(
    ("n", "keep", "kept"), [(9, 0.34, 3), (3, 0.34, 1), (3, 0.33, 1), (100, 0.29, 29), (1, 0.1, 1)]
)
def test_shares_are_rounded_down(n: int, keep: float, kept: int) -> None:
    """0.29 · 100 is 28.999999999999996 in floating point."""
    assert len(select({f"a{i:03}": float(i) for i in range(n)}, keep)[0]) == kept


def study(results: Path, arms: dict[str, dict[str, str]], **options: object) -> Cohort:
    cohort = Cohort("lr", Prune.model_validate(options), arms)
    write_json(cohort_file(results, "lr"), cohort.record())
    for runs in arms.values():
        for run in runs:
            write_json(results / "ablations" / run / "plan.json", {"name": run, "stages": {}})
    return cohort


def reached(results: Path, rung: float, psnr: dict[str, float | None]) -> None:
    for identity, value in psnr.items():
        write_rung(results / "unet" / identity, rung, 100, None if value is None else {"validation_psnr": value})


def pruned(results: Path, run: str) -> dict | None:
    return read_json(results / "ablations" / run / "plan.json").get("pruned")


def test_two_rungs(tmp_path: Path) -> None:
    arms = {name: {name: f"id-{name}"} for name in "abcdef"}
    cohort = study(tmp_path, arms, rungs=[0.1, 0.3, 1], keep=0.5)
    reached(
        tmp_path, 0.1, {f"id-{name}": value for name, value in zip("abcdef", (20, 25, 22, None, 24, 21), strict=True)}
    )
    prune.run(tmp_path, "lr", 0.1)
    first = read_json(decision_file(tmp_path, "lr", 0.1))
    assert first["kept"] == ["b", "e", "c"]
    assert first["pruned"] == ["f", "a", "d"]
    assert cohort.rung_files(tmp_path, 0.3) == {n: [rung_file(tmp_path / "unet" / f"id-{n}", 0.3)] for n in "bce"}

    reached(tmp_path, 0.3, {"id-b": 26.0, "id-c": 27.5, "id-e": 26.5})
    prune.run(tmp_path, "lr", 0.3)
    assert read_json(decision_file(tmp_path, "lr", 0.3))["kept"] == ["c"]
    assert pruned(tmp_path, "c") is None
    assert pruned(tmp_path, "f") == {"rung": 0.1, "value": 21.0, "by": "validation_psnr"}
    assert pruned(tmp_path, "d") == {"rung": 0.1, "value": None, "by": "validation_psnr"}
    assert pruned(tmp_path, "b") == {"rung": 0.3, "value": 26.0, "by": "validation_psnr"}


def test_replicates_are_judged_by_their_mean_and_go_together(tmp_path: Path) -> None:
    """The best single run belongs to the worse arm; an arm with a run that diverged is last."""
    arms = {arm: {f"{arm}@seed={i}": f"id-{arm}{i}" for i in (0, 1)} for arm in "abc"}
    study(tmp_path, arms, rungs=[0.5, 1], keep=0.4)
    reached(tmp_path, 0.5, {"id-a0": 30.0, "id-a1": 10.0, "id-b0": 21.0, "id-b1": 22.0, "id-c0": 40.0, "id-c1": None})
    prune.run(tmp_path, "lr", 0.5)
    decision = read_json(decision_file(tmp_path, "lr", 0.5))
    assert decision["values"] == {"a": 20.0, "b": 21.5, "c": None}
    assert decision["kept"] == ["b"]
    for run in ("a@seed=0", "a@seed=1"):
        assert pruned(tmp_path, run) == {"rung": 0.5, "value": 20.0, "by": "validation_psnr"}
    assert pruned(tmp_path, "b@seed=1") is None


def test_arms_that_share_their_trainings_go_together(tmp_path: Path) -> None:
    """Arms b and d differ in what comes after training only. Arm c has the same value by chance, e one other seed."""
    arms = {arm: {f"{arm}@{i}": f"id-{of}{i}" for i in (0, 1)} for arm, of in zip("abcd", "xyzy", strict=True)}
    arms["e"] = {"e@0": "id-y0", "e@1": "id-w1"}
    cohort = study(tmp_path, arms, rungs=[0.2, 0.5, 1], keep=0.34)
    figures = {"x": (20.0, 20.0), "y": (25.0, 21.0), "z": (23.0, 23.0), "w": (None, 20.0)}
    reached(tmp_path, 0.2, {f"id-{of}{i}": values[i] for of, values in figures.items() for i in (0, 1)})
    prune.run(tmp_path, "lr", 0.2)
    decision = read_json(decision_file(tmp_path, "lr", 0.2))
    assert (decision["kept"], decision["pruned"]) == (["b", "d"], ["c", "e", "a"])
    assert sorted(cohort.rung_files(tmp_path, 0.5)) == ["b", "d"]
    reached(tmp_path, 0.5, {"id-y0": 26.0, "id-y1": 26.0})
    prune.run(tmp_path, "lr", 0.5)
    assert read_json(decision_file(tmp_path, "lr", 0.5))["kept"] == ["b", "d"]
    assert pruned(tmp_path, "d@0") is None


def test_a_decision_about_other_arms_counts_for_nothing(tmp_path: Path) -> None:
    cohort = study(tmp_path, {"a": {"a": "id-a"}, "b": {"b": "id-b"}}, rungs=[0.5, 1])
    reached(tmp_path, 0.5, {"id-a": 1.0, "id-b": 2.0})
    prune.run(tmp_path, "lr", 0.5)
    assert set(cohort.pruned(tmp_path)) == {"a"}
    edited = Cohort("lr", cohort.prune, {**cohort.arms, "c": {"c": "id-c"}})
    assert edited.pruned(tmp_path) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rungs": [0.3, 0.1, 1]}, "rungs must increase, got 0.3, 0.1, 1"),
        ({"rungs": [0.1, 0.1, 1]}, "rungs must increase"),
        ({"rungs": [0.1, 0.5]}, "the last rung is the end of training, 1, got 0.5"),
        ({"rungs": [1]}, "at least 2"),
        ({"rungs": [0, 1]}, "greater than or equal to 0.001"),
        ({"rungs": [0.12345678, 1]}, "at most six digits"),
        ({"keep": 1}, "less than 1"),
        ({"keep": 0}, "greater than 0"),
        ({"by": "psnr"}, "'validation_psnr' or 'held_out_psnr'"),
        ({"by": "held_out_psnr"}, "held_out_psnr is not measured in stage unet; it has validation_psnr"),
        ({"stage": "fit"}, "'autodecoder' or 'unet'"),
        ({"keeps": 0.3}, "Extra inputs are not permitted"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Prune.model_validate(options)
