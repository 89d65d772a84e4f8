"""The budget as jobs see it: hours by hand, and who may start."""

from pathlib import Path

import pytest
from support.status_tree import write_record

from z1g.core.errors import UserError
from z1g.jobs.budget import SPENT, Budget, forget_budget, read_budget, require_budget


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """Two fits of 30 minutes on one GPU, one of which was tried twice, and 15 minutes of stage 2 on 2 x 3 GPUs: 3 h."""
    gpu = {"gpus": ["GPU"], "seconds": 1800.0}
    write_record(tmp_path / "fit/aa", "chunk-00000", {**gpu, "finished": False}, gpu)
    write_record(tmp_path / "fit/aa", "chunk-00001", gpu)
    write_record(tmp_path / "unet/bb", "unet", {"gpus": ["a", "b", "c"], "nodes": 2, "seconds": 900.0})
    write_record(tmp_path / "unet/other", "unet", {"gpus": ["GPU"], "seconds": 36000.0})
    write_record(tmp_path / "codes/cc", "codes", {"seconds": 36000.0})
    return tmp_path


STAGES = ["fit/aa", "unet/bb", "codes/cc", "infer/dd"]


def test_hours_are_those_of_all_attempts_of_the_set(used: Path) -> None:
    assert Budget(9, STAGES).used(used) == pytest.approx(3.0)


@pytest.mark.parametrize(("hours", "starts"), [(3.01, True), (3.0, False), (1.0, False)])
def test_no_job_starts_once_the_hours_reach_the_budget(hours: float, starts: bool, used: Path) -> None:
    Budget(hours, STAGES, {"left": 2.0}).write(used)
    if starts:
        require_budget(used / "infer/dd", 1)
    else:
        with pytest.raises(UserError, match=f"{SPENT}: 3 of {hours:g} GPU hours are used"):
            require_budget(used / "infer/dd", 1)


def test_jobs_without_gpus_and_of_other_sets_start(used: Path) -> None:
    Budget(1.0, STAGES).write(used)
    require_budget(used / "infer/dd", 0)
    require_budget(used / "infer/dd", None)
    require_budget(used / "unet/other", 4)


def test_a_run_without_a_budget_forgets_that_of_an_earlier_one(used: Path) -> None:
    budget = Budget(1.0, STAGES, {"left": 2.0})
    budget.write(used)
    assert read_budget(used) == budget
    forget_budget(used)
    forget_budget(used)
    assert read_budget(used) is None
    require_budget(used / "infer/dd", 1)


@pytest.mark.parametrize("text", ["", "[]", '{"gpu_hours": "many", "stages": [], "left_out": {}}', '{"gpu_hours": 1}'])
def test_a_damaged_budget_is_an_error(text: str, used: Path) -> None:
    (used / "budget.json").write_text(text)
    with pytest.raises(UserError, match=r"budget\.json cannot be read"):
        require_budget(used / "infer/dd", 1)
