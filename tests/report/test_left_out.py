"""Runs that the budget of a set left out: tables, report and comparisons name them and what they would have cost."""

import json
from pathlib import Path

import pytest
from support.study_tree import write_study

from z1g.cli.main import main
from z1g.config.run_names import means
from z1g.core.errors import UserError
from z1g.jobs.budget import Budget
from z1g.report.collect import Results
from z1g.report.compare import compare
from z1g.report.study_page import studies_of

LEFT_OUT = {"rate@lr=3@seed=0": 1.25, "rate@lr=3@seed=1": 1.5, "rate@lr=1@seed=2": 0.5, "other": 4.0}
SENTENCE = "Left out by the budget of 20 GPU hours, with those that each run would add: "
POINTS = [{"unet.lr": 1}, {"unet.lr": 2}]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two arms with two seeds; a third arm, a third seed of the first one, and another ablation were left out."""
    write_study(tmp_path, "rate", POINTS, lambda point: 20.0 + point["unet.lr"], seeds=2)
    Budget(20.0, ["metrics/me-rate@lr=1@seed=0"], LEFT_OUT).write(tmp_path)
    return tmp_path


def planned(tree: Path) -> list[str]:
    return Results(tree).planned()


def test_tables_name_what_was_left_out(tree: Path) -> None:
    main(["tables", str(tree), "--ablations", *planned(tree), "--out", str(tree / "tables")])
    told = "rate@lr=3@seed=0 (+1.25), rate@lr=3@seed=1 (+1.5), rate@lr=1@seed=2 (+0.5), other (+4)."
    assert f"- {SENTENCE}{told}" in (tree / "tables/ablations.md").read_text()
    assert f"% {SENTENCE}{told}" in (tree / "tables/ablations.tex").read_text()


@pytest.mark.slow
def test_the_report_names_what_was_left_out(tree: Path) -> None:
    main(["report", str(tree), "--ablations", *planned(tree), "--out", str(tree / "report.html")])
    page = (tree / "report.html").read_text()
    assert f"{SENTENCE}rate@lr=3@seed=0 (+1.25), rate@lr=3@seed=1 (+1.5)" in page
    assert "2, 4 runs left out by the budget" in page
    (section,) = studies_of(Results(tree), Results(tree).ablations(planned(tree))).sections()
    assert "3 runs left out by the budget (+3.25 GPU hours)" in section.facts


def test_comparisons_name_what_was_left_out(tree: Path) -> None:
    found = compare(tree, ["rate@lr=1", "rate@lr=2"], "test", "sampled")
    assert found.notes == [f"{SENTENCE}rate@lr=1@seed=2 (+0.5)."]


@pytest.mark.parametrize(
    ("target", "runs"),
    [
        ("rate@lr=3", "rate@lr=3@seed=0 (+1.25), rate@lr=3@seed=1 (+1.5)"),
        ("rate@lr=3@seed=1", "rate@lr=3@seed=1 (+1.5)"),
        ("other", "other (+4)"),
    ],
)
def test_a_result_that_was_left_out_is_refused_with_its_cost(target: str, runs: str, tree: Path) -> None:
    with pytest.raises(UserError, match="has no results") as error:
        compare(tree, ["rate@lr=1", target], "test", "sampled")
    assert f"{target} has no results. {SENTENCE}{runs}. A larger budget=" in str(error.value)


def test_planned_earlier_and_left_out_now(tree: Path) -> None:
    """A run whose plan is there from an earlier start, without results, is left out by the budget and not just late."""
    folder = tree / "ablations/rate@lr=1@seed=2"
    folder.mkdir()
    plan = json.loads((tree / "ablations/rate@lr=1@seed=1/plan.json").read_text())
    plan |= {"name": folder.name, "seed": 2, "stages": {"metrics": "me-new"}}
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "config.json").write_text("{}")
    assert compare(tree, ["rate@lr=1", "rate@lr=2"], "test", "sampled").notes == [f"{SENTENCE}{folder.name} (+0.5)."]
    for run in ("rate@lr=1@seed=0", "rate@lr=1@seed=1"):
        (tree / f"metrics/me-{run}/metrics.jsonl").unlink()
    with pytest.raises(UserError, match=r"rate@lr=1 has not been measured yet.* Left out by the budget of 20"):
        compare(tree, ["rate@lr=1", "rate@lr=2"], "test", "sampled")


def test_a_budget_of_another_set_says_nothing(tree: Path) -> None:
    Budget(20.0, ["metrics/of-another-set"], LEFT_OUT).write(tree)
    main(["tables", str(tree), "--ablations", *planned(tree), "--out", str(tree / "tables")])
    assert "budget" not in (tree / "tables/ablations.md").read_text()


def test_a_damaged_budget_is_noted(tree: Path) -> None:
    (tree / "budget.json").write_text("{")
    results = Results(tree)
    studies_of(results, results.ablations(planned(tree)))
    assert any("budget.json cannot be read" in note for note in results.notes)


@pytest.mark.parametrize(
    ("word", "meant"),
    [("a", True), ("a@x=1", True), ("a@seed=0", True), ("a@x=1@seed=0", True), ("a@seed=1", False), ("b", False)],
)
def test_words_mean_runs(word: str, meant: bool) -> None:
    assert means(word, "a@x=1@seed=0") is meant
