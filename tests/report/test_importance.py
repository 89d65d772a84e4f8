"""What matters in a study, in words and as a table; and when there are too few points to say."""

import csv
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.study_tree import grid

from z1g.report.collect import MetricInfo
from z1g.report.importance import Importance, effects_csv, holm, importance, short_names
from z1g.report.studies import Run, Study

METRICS = {"psnr": MetricInfo("PSNR", "dB", True), "chamfer": MetricInfo("Chamfer", "size", False, scope="object")}


def study_of(
    points: list[dict[str, Any]],
    psnr: Callable[[dict[str, Any]], float],
    seeds: int = 1,
    noise: float = 0.0,
    pruned: tuple[int, ...] = (),
) -> Study:
    """A study with a run for every point and seed, whose PSNR is a function of the point plus normal noise."""
    draw = np.random.default_rng(11)
    runs = []
    for number, point in enumerate(points):
        for seed in range(seeds):
            value = psnr(point) + noise * float(draw.normal())
            values = {} if number in pruned else {"psnr": value, "chamfer": 0.2 - value / 500}
            state = {"rung": 0.1} if number in pruned else None
            runs.append(Run(f"{number}@seed={seed}", str(number), point, values, seed, pruned=state))
    return Study("sweep", runs, METRICS)


def shares(found: Importance) -> dict[str, float]:
    return {effect.label: effect.share for effect in found.effects}


def test_a_replicated_grid_names_the_shares_of_options_pairs_and_noise() -> None:
    """Variances: a in {-1, 1} has 1, the product a·b 0.25; noise has 0.25."""
    study = study_of(
        grid(unet__a=[-1, 1], infer__b=[-1, 1]),
        lambda point: 20 + point["unet.a"] + 0.5 * point["unet.a"] * point["infer.b"],
        seeds=40,
        noise=0.5,
    )
    found = importance(study, "psnr")
    assert shares(found) == pytest.approx({"a": 2 / 3, "a × b": 1 / 6, "noise (replicates)": 1 / 6, "b": 0}, abs=0.03)
    assert [effect.told for effect in found.effects if effect.label in ("a", "a × b", "b")] == [True, True, False]
    assert found.sentence.startswith("Variance between runs: a 6")
    assert ", b " not in found.sentence, "what cannot be told from noise is not in the sentence"
    assert (found.n_runs, found.n_arms) == (160, 4)
    for effect in found.effects:
        assert effect.low <= effect.share <= effect.high


def test_exclusive_or_belongs_to_the_pair() -> None:
    study = study_of(grid(a=["x", "y"], b=["x", "y"]), lambda p: 20 + float(p["a"] == p["b"]), seeds=3, noise=0.05)
    found = importance(study, "psnr")
    assert found.effects[0].keys == ("a", "b")
    assert found.effects[0].share > 0.9
    assert {e.label for e in found.effects if not e.told} == {"a", "b"}


def test_noise_is_not_taken_for_an_effect() -> None:
    study = study_of(grid(a=[1, 2, 3], b=[1, 2]), lambda point: 20, seeds=4, noise=1.0)
    found = importance(study, "psnr")
    assert [effect.label for effect in found.effects if effect.told] == ["noise (replicates)"]


def test_random_points_without_replicates_leave_noise_and_misfit_together() -> None:
    draw = np.random.default_rng(2)
    points = [{"a": float(a), "b": float(b)} for a, b in draw.random((40, 2))]
    study = study_of(points, lambda point: 20 + 3 * point["a"], noise=0.3, pruned=(0, 1))
    found = importance(study, "psnr")
    assert found.n_runs == 38
    by_label = shares(found)
    signal = 9 / 12
    assert by_label["a"] == pytest.approx(signal / (signal + 0.09), abs=0.06)
    assert by_label["noise and what is not described"] == pytest.approx(0.09 / (signal + 0.09), abs=0.06)
    assert "polynomial" in found.method


@pytest.mark.parametrize(
    ("points", "seeds", "words"),
    [
        (grid(a=[1, 2, 3]), 1, "Too few points to say: 3 points in 3 runs for 1 option; it takes a full grid with at "
         "least 4 runs more than points, or 6 points."),
        (grid(a=[1, 2], b=[1, 2]), 1, "Too few points to say"),
        ([{"a": i, "b": 2 * i} for i in range(12)], 3, "Options of the study always change together"),
    ],
)  # fmt: skip
def test_too_few_points_are_said(points: list[dict[str, Any]], seeds: int, words: str) -> None:
    study = study_of(points, lambda point: 20 + point["a"], seeds=seeds, noise=0.1)
    found = importance(study, "psnr")
    assert found.effects == []
    assert found.sentence.startswith(words)


def test_equal_values_are_said() -> None:
    study = study_of(grid(a=[1, 2, 3]), lambda point: 20, seeds=3)
    assert importance(study, "psnr").sentence == "All measured runs have the same value."


def test_pairs_are_left_out_if_there_are_few_points() -> None:
    draw = np.random.default_rng(3)
    points = [dict(zip("abcd", map(float, row), strict=True)) for row in draw.random((14, 4))]
    study = study_of(points, lambda point: 20 + point["a"], noise=0.1)
    found = importance(study, "psnr")
    assert {effect.kind for effect in found.effects} == {"option", "unexplained"}
    assert "too few points to estimate pairs" in found.method


def test_table_of_effects() -> None:
    study = study_of(grid(unet__a=[1, 2, 3]), lambda p: 20 + p["unet.a"], seeds=3, noise=0.1)
    found = [importance(study, metric) for metric in study.metrics]
    rows = list(csv.DictReader(io.StringIO(effects_csv(study, found))))
    assert {row["metric"] for row in rows} == {"psnr", "chamfer"}
    first = rows[0]
    assert (first["study"], first["kind"], first["options"], first["runs"]) == ("sweep", "option", "unet.a", "9")
    assert float(first["share"]) == found[0].effects[0].share
    nothing = effects_csv(study, [Importance("psnr", [], "", 2, 2, "too few points to say")])
    assert nothing.splitlines()[1] == "sweep,psnr,,,,,,,2,2,too few points to say"


def test_holm() -> None:
    """Example of Holm (1979) as many textbooks compute it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_short_names_are_unique() -> None:
    keys = ["unet.train.lr", "autodecoder.train.lr", "infer.guidance", "representation.scale.kind", "kind", "lr"]
    assert list(short_names(keys).values()) == [
        "unet.train.lr", "autodecoder.train.lr", "guidance", "scale.kind", "kind", "lr",
    ]  # fmt: skip


def test_three_options_together_are_one_effect() -> None:
    """The sign of a·b·c belongs to no option and to no pair."""
    study = study_of(grid(a=[-1, 1], b=[-1, 1], c=[-1, 1]), lambda p: 20 + p["a"] * p["b"] * p["c"], seeds=3, noise=0.1)
    found = importance(study, "psnr")
    assert (found.effects[0].kind, found.effects[0].label) == ("higher", "three and more options together")
    assert found.effects[0].share > 0.95
    assert "three and more" in found.method
