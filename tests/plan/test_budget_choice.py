"""Which runs a budget suffices for, by hand."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import SIZES, experiment, plan, stage_path
from support.status_tree import write_output, write_record

from z1g.config.resolve import Ablation
from z1g.core.errors import UserError
from z1g.plan import budget as choice
from z1g.plan.budget import chosen, gpu_hours_of, within_budget
from z1g.plan.cost import Cost
from z1g.plan.plan import Plan
from z1g.plan.status import estimates

FIT, STAGE_1 = ("fit", "1"), ("autodecoder", "1")
HOURS = {FIT: 2.0, STAGE_1: 5.0, ("unet", "a"): 3.0, ("unet", "b"): 4.0, ("unet", "c"): 1.0}
RUNS = {name: [FIT, STAGE_1, ("unet", name)] for name in "abc"}
NONE = dict.fromkeys(RUNS, 0)


@pytest.mark.parametrize(
    ("limit", "priority", "kept", "left_out"),
    [
        (15.0, NONE, ["a", "b", "c"], {}),
        (14.9, NONE, ["a", "b"], {"c": 1.0}),
        (11.0, NONE, ["a", "c"], {"b": 4.0}),
        (10.0, NONE, ["a"], {"b": 4.0, "c": 1.0}),
        (11.0, {"a": 0, "b": 1, "c": 0}, ["b"], {"a": 3.0, "c": 1.0}),
        (12.0, {"a": 0, "b": 1, "c": 0}, ["b", "c"], {"a": 3.0}),
        (12.0, {"a": -1, "b": 0, "c": 7}, ["b", "c"], {"a": 3.0}),
        (9.0, NONE, ["c"], {"a": 10.0, "b": 11.0}),
        (7.9, NONE, [], {"a": 10.0, "b": 11.0, "c": 8.0}),
    ],
)
def test_runs_that_fit(limit: float, priority: dict[str, int], kept: list[str], left_out: dict[str, float]) -> None:
    """Renders' fits take 2 h and stage 1 takes 5 h, once for all; stages 2 take 3, 4 and 1 h."""
    assert chosen(RUNS, HOURS, priority, limit) == (kept, left_out)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sets(st.integers(0, 5), min_size=1), st.integers(-2, 2)), min_size=1, max_size=6),
    st.lists(st.integers(0, 9), min_size=6, max_size=6),
    st.integers(0, 40),
)
def test_what_is_kept_fits_and_what_is_left_out_does_not(
    drawn: list[tuple[set[int], int]], hours: list[int], limit: int
) -> None:
    """Against a sum over sets of stages in exact integers."""
    runs = {str(i): [("unet", str(n)) for n in stages] for i, (stages, _) in enumerate(drawn)}
    priority = {str(i): rank for i, (_, rank) in enumerate(drawn)}
    kept, left_out = chosen(runs, {("unet", str(n)): float(hours[n]) for n in range(6)}, priority, limit)

    def total(names: list[str]) -> int:
        return sum(hours[n] for n in set().union(*(drawn[int(name)][0] for name in names), set()))

    assert total(kept) <= limit
    assert sorted([*kept, *left_out]) == sorted(runs)
    for name in left_out:
        before = [other for other in kept if (-priority[other], int(other)) < (-priority[name], int(name))]
        assert total([*before, name]) > limit
        assert left_out[name] == total([*before, name]) - total(before)


@pytest.mark.parametrize("given", ["", "many", "-1", 0, "nan", "inf", True, None, [3]])
def test_budgets_that_are_none(given: Any) -> None:
    with pytest.raises(UserError, match="positive number of GPU hours"):
        gpu_hours_of(given)


@pytest.mark.parametrize(("given", "hours"), [(20, 20.0), ("20", 20.0), (0.5, 0.5), ("1e-3", 0.001)])
def test_budgets(given: Any, hours: float) -> None:
    assert gpu_hours_of(given) == hours


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Two runs of one stage 1, by made-up figures: fit 1 h, stages 1 and 2 10 h each, sampling 1 h."""
    resources = {"fit": {"gpus": 1}, "autodecoder": {"gpus": 2}, "codes": {"gpus": 0}, "unet": {"gpus": 1}}
    resources |= {"infer": {"gpus": 1}, "metrics": {"gpus": 0}}
    meshes = plan(tmp_path, resources=resources)
    meshes_folder = tmp_path / "meshes"
    ablations = [
        Ablation(
            name, "", "micro", {}, experiment(meshes_folder, resources=resources, unet={"train": {"steps": steps}})
        )
        for name, steps in (("first", 6), ("second", 7))
    ]

    def figures(given: Any, n: int) -> list[Cost]:
        assert n == 4, "the number of objects"
        hours = {"fit": 1.0, "autodecoder": 10.0, "unet": 10.0, "infer": 1.0}
        return [Cost(name, 1, hours.get(name, 0.5), 1.0, 0.0, 1) for name in meshes.ablations["micro"].stages]

    monkeypatch.setattr(estimates, "costs", figures)
    monkeypatch.chdir(tmp_path)
    return Plan(ablations, tmp_path / "results")


def test_a_shared_stage_is_costed_once(two: Plan) -> None:
    both = within_budget(two, 33.0)
    assert list(both.plan.ablations) == ["first", "second"]
    assert both.planned == pytest.approx(33.0), "1 + 10 + 2 · (10 + 1), and nothing for stages without GPUs"
    assert both.budget.left_out == {}
    one = within_budget(two, 32.9)
    assert list(one.plan.ablations) == ["first"]
    assert one.budget.left_out == {"second": pytest.approx(11.0)}
    assert one.planned == pytest.approx(22.0)
    assert set(one.budget.stages) == {f"{stage}/{identity}" for stage, identity in one.plan.stages}
    assert "left out by the budget: second (+11 GPU hours)" in one.sentences()
    with pytest.raises(UserError, match="no run fits in it; the cheapest, first, takes 22 GPU hours"):
        within_budget(two, 21.0)


def test_what_is_done_counts_as_it_was(two: Plan) -> None:
    """Stage 1 took 2 h on two GPUs and not the 10 GPU hours of the figures."""
    folder = two.folder(*two.ablations["first"].stages["autodecoder"].key)
    write_output(folder)
    write_record(folder, "autodecoder", {"seconds": 7200.0, "gpus": ["GPU", "GPU"]})
    assert within_budget(two, 40.0).planned == pytest.approx(1 + 4 + 2 * 11)


def test_a_finished_run_is_kept_however_much_it_took(two: Plan) -> None:
    for name, stage in two.ablations["first"].stages.items():
        folder = two.folder(*stage.key)
        for chunk in range(stage.n_chunks):
            write_output(folder, chunk)
        write_record(folder, name, {"seconds": 360_000.0, "gpus": ["GPU"] * stage.resources.gpus})
    kept = within_budget(two, 20.0)
    assert list(kept.plan.ablations) == ["first"]
    assert kept.budget.left_out == {"second": pytest.approx(11.0)}


def test_higher_priority_comes_first(two: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    record = choice.ablation_record
    monkeypatch.setattr(
        choice,
        "ablation_record",
        lambda planned: record(planned) | {"priority": int(planned.ablation.name == "second")},
    )
    assert list(within_budget(two, 32.0).plan.ablations) == ["second"]


def test_stages_without_figures_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of made-up sizes have none."""
    monkeypatch.chdir(tmp_path)
    planned = plan(tmp_path, resources={"unet": {"gpus": 1}}, model={"kind": "scratch", **SIZES})
    found = within_budget(planned, 1.0)
    unet = f"unet {stage_path(planned, 'unet').name}"
    assert unet in found.unknown
    assert any(unet in sentence for sentence in found.sentences())
