"""Studies read from results: runs, arms, factors, what is left out, and the table of all runs."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from support.study_tree import grid, write_run, write_study

from z1g.report.collect import MetricInfo, Results
from z1g.report.learning_curves import curve
from z1g.report.slices import Marginal, interval_of_mean, marginals
from z1g.report.studies import Factor, Run, Study, label, read_studies, runs_csv
from z1g.report.study_tables import tables

POINTS = grid(unet__lr=[1e-5, 1e-4, 1e-3], infer__guidance=[1, 2])


def psnr(point: dict[str, float]) -> float:
    return 25 + math.log10(point["unet.lr"]) + 0.5 * point["infer.guidance"]


def read(root: Path, names: list[str]) -> list[Study]:
    tree = Results(root)
    return read_studies(tree, tree.ablations(names))


def test_runs_of_a_study_are_read_with_their_means(tmp_path: Path) -> None:
    names = write_study(tmp_path, "sweep", POINTS, psnr, seeds=2)
    (study,) = read(tmp_path, names)
    assert len(study.runs) == 12
    assert len(study.arms) == 6
    run = study.runs[0]
    assert (run.arm, run.seed, run.fold, run.pruned) == ("sweep@lr=1e-05,guidance=1", 0, None, None)
    assert run.values["psnr"] == pytest.approx(20.5), "the mean of two objects, one dB above and below"
    assert run.values["chamfer"] == pytest.approx(0.2 - 20.5 / 500)
    assert study.split == "test"
    assert [factor.key for factor in study.factors] == ["unet.lr", "infer.guidance"]
    assert study.factors[0].levels == ("1e-05", "0.0001", "0.001")
    assert [factor.logarithmic for factor in study.factors] == [True, False]


def test_ablations_without_further_arms_are_no_study(tmp_path: Path) -> None:
    """Old plans have no study; replicates of one arm differ in nothing."""
    write_run(tmp_path, "old", 20.0, {})
    names = write_study(tmp_path, "replicates", [{}], lambda point: 20.0, seeds=3)
    assert read(tmp_path, ["old", *names]) == []


def test_pruned_and_unmeasured_runs_have_no_values(tmp_path: Path) -> None:
    names = write_study(tmp_path, "sweep", POINTS, psnr, pruned=[1])
    write_run(tmp_path, "sweep@late", None, {"study": "sweep", "arm": "sweep@late", "point": {"unet.lr": 1}})
    tree = Results(tmp_path)
    (study,) = read_studies(tree, tree.ablations([*names, "sweep@late"]))
    assert len(study.complete("psnr")) == 5
    assert study.runs[1].pruned == {"rung": 0.1, "value": 12.0, "by": "validation_psnr"}
    assert study.ranked_arms()[0] == "sweep@lr=0.001,guidance=2"
    assert set(study.ranked_arms()[-2:]) == {study.runs[1].arm, "sweep@late"}
    assert tree.notes == [], "a run that has not been measured yet is no missing file"
    guidance = next(factor for factor in study.factors if factor.key == "infer.guidance")
    assert guidance.levels == ("1", "2", "–")
    assert guidance.numbers is None, "one run does not set the option"


def test_table_of_runs_has_full_precision(tmp_path: Path) -> None:
    names = write_study(tmp_path, "sweep", POINTS, lambda point: psnr(point) + 1 / 3, pruned=[0])
    (study,) = read(tmp_path, names)
    rows = list(csv.DictReader(io.StringIO(runs_csv(study))))
    assert [row["run"] for row in rows] == names
    assert (rows[0]["pruned"], rows[0]["psnr"], rows[0]["unet.lr"]) == ("yes", "", "1e-05")
    assert float(rows[1]["psnr"]) == study.runs[1].values["psnr"]
    assert rows[1]["seed"] == "0"
    assert rows[1]["fold"] == ""
    assert {row["left_out_gpu_hours"] for row in rows} == {""}


def test_table_of_runs_lists_what_the_budget_left_out(tmp_path: Path) -> None:
    names = write_study(tmp_path, "sweep", POINTS, psnr)
    (study,) = read(tmp_path, names)
    rows = list(csv.DictReader(io.StringIO(runs_csv(replace(study, left_out={"sweep@late": 1.5})))))
    assert [row["run"] for row in rows] == [*names, "sweep@late"]
    assert {name: value for name, value in rows[-1].items() if value} == {
        "run": "sweep@late", "pruned": "no", "left_out_gpu_hours": "1.5"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((1e-5, 1e-4, 1e-3), True),
        (tuple(i / 100 for i in range(1, 101)), False),
        (tuple(10 ** (i / 30) for i in range(60)), True),
        ((1.0, 10.0), False),
        ((-1.0, 0.0, 100.0), False),
    ],
)
def test_logarithmic_axis_follows_the_values(numbers: tuple[float, ...], expected: bool) -> None:
    factor = Factor("f", tuple(map(str, numbers)), numbers)
    assert factor.logarithmic is expected
    assert (factor.position(numbers[0]), factor.position(numbers[-1])) == (0, 1)


def test_interval_is_that_of_a_t_test() -> None:
    from scipy import stats

    values = [19.7, 20.4, 21.9]
    reference = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval_of_mean(values) == pytest.approx((20.6667, reference.low, reference.high), abs=1e-4)
    assert interval_of_mean([1.0]) is None


def test_marginal_means_average_over_the_other_options(tmp_path: Path) -> None:
    names = write_study(tmp_path, "sweep", POINTS, psnr, pruned=[5])
    (study,) = read(tmp_path, names)
    found = marginals(study.factors[0], study.runs, "psnr")
    assert [(m.at, m.n) for m in found] == [(1e-5, 2), (1e-4, 2), (1e-3, 1)]
    assert [m.mean for m in found] == pytest.approx([20.75, 21.75, 22.5])
    assert (found[2].low, found[2].high) == (None, None), "one run has no interval"


def test_many_values_are_grouped() -> None:
    values = [10 ** (i / 30) for i in range(60)]
    runs = [Run(f"r{i}", f"r{i}", {"x": value}, {"psnr": float(i)}) for i, value in enumerate(values)]
    factor = Factor("x", tuple(map(str, values)), tuple(values))
    found: list[Marginal] = marginals(factor, runs[::-1], "psnr")
    assert [m.n for m in found] == [10] * 6
    assert [m.mean for m in found] == [4.5, 14.5, 24.5, 34.5, 44.5, 54.5]
    assert found[0].at == pytest.approx(10 ** (4.5 / 30)), "the center of a group on a logarithmic axis"


def test_the_last_metric_of_a_pruned_run_counts_nowhere() -> None:
    """What was measured before a run was pruned is not comparable with complete runs."""
    runs = [Run(f"r{i}", f"r{i}", {"x": i % 2}, {"psnr": 20.0 + i}) for i in range(4)]
    runs.append(Run("late", "late", {"x": 1}, {"psnr": 40.0}, pruned={"rung": 0.1}))
    study = Study("s", runs, {"psnr": MetricInfo("PSNR", higher_is_better=True)})
    assert [run.name for run in study.complete("psnr")] == ["r0", "r1", "r2", "r3"]
    assert study.ranked_arms() == ["r3", "r2", "r1", "r0", "late"]
    assert [m.mean for m in marginals(study.factors[0], study.runs, "psnr")] == [21, 22]
    placed = [replace(run, x=1.0) for run in runs]
    assert [(point.mean, point.n) for point in curve(placed, "psnr")] == [(21.5, 4)]
    table = tables(study)["arms"]
    assert table["columns"] == ["arm", "state", "a0", "m0"]
    assert table["rows"][0] == ["late", "pruned", 1, None], "pruned arms are drawn below the others"


def test_equal_numbers_are_one_value() -> None:
    slot = {"kind": "x", "a": 1}
    assert [label(value) for value in (2, 2.0, 2.5, True, None, "2", ..., [1, 2.0], {"kind": "x"}, slot)] == [
        "2", "2", "2.5", "true", "null", "2", "–", "[1, 2.0]", "x", '{"kind": "x", "a": 1}',
    ]  # fmt: skip
