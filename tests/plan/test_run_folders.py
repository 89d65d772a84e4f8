"""Runs by name in a results folder."""

from pathlib import Path

import pytest

from z1g.core.errors import UserError
from z1g.plan.runs import planned_runs, run_folder

RUNS = ["study@lr=1e-3@seed=0", "study@lr=1e-3@seed=1", "study@lr=1e-4@seed=0", "encoder"]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with four planned runs, and a folder without a plan."""
    for name in RUNS:
        (tmp_path / "ablations" / name).mkdir(parents=True)
        (tmp_path / "ablations" / name / "plan.json").write_text("{}")
    (tmp_path / "ablations" / "left_over").mkdir()
    return tmp_path


def test_a_name_and_a_folder_mean_the_same_run(results: Path) -> None:
    assert planned_runs(results) == sorted(RUNS)
    for name in RUNS:
        folder = results / "ablations" / name
        assert run_folder(name, results) == run_folder(str(folder), results) == folder


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("study@lr=1e-3", "; name one of its runs: study@lr=1e-3@seed=0, study@lr=1e-3@seed=1"),
        ("study", "name one of its runs: study@lr=1e-3@seed=0, study@lr=1e-3@seed=1, study@lr=1e-4@seed=0"),
        ("study@seed=1", "name one of its runs: study@lr=1e-3@seed=1"),
        ("study@lr=1e-3@seed=2", 'did you mean "study@lr=1e-3@seed='),
        ("encodr", 'did you mean "encoder"?'),
        ("stud", 'did you mean "study"?'),
        ("something else", "valid: encoder, study"),
        ("left_over", "is neither a folder nor a run of "),
        ("../ablations/encoder", "is neither a folder nor a run of "),
    ],
)
def test_other_names_are_refused_with_the_nearest_one(results: Path, text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        run_folder(text, results)
    assert words in str(caught.value)


def test_a_folder_without_runs_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which has no runs yet"):
        run_folder("encoder", tmp_path / "results")


def test_long_lists_of_names_are_cut(tmp_path: Path) -> None:
    for i in range(600):
        folder = tmp_path / "ablations" / f"a{i:03d}"
        folder.mkdir(parents=True)
        (folder / "plan.json").write_text("{}")
    with pytest.raises(UserError) as caught:
        run_folder("quite different", tmp_path)
    assert len(str(caught.value)) < 2000
    assert " more" in str(caught.value)
