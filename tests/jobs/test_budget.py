"""The budget as jobs see it: hours by hand, and who may start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT
from support.status_tree import write_record

from z1g.core.errors import UserError
from z1g.jobs.budget import SPENT, Budget, forget_budget, read_budget, require_budget

WATCH = """
import logging, signal, sys
from pathlib import Path
from z1g.jobs.budget import read_budget, stop_when_spent

signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
logging.basicConfig()
results = Path(sys.argv[1])
print("watches", flush=True)
stop_when_spent(results, read_budget(results), every_s=0.05).join()
signal.pause()
"""


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


def test_snakemake_is_asked_to_stop_when_the_budget_is_used(used: Path) -> None:
    """A stand-in for Snakemake's process, which SIGTERM asks to start nothing more."""
    Budget(3.5, STAGES).write(used)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WATCH, str(used)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "watches\n"
            assert child.poll() is None
            write_record(used / "infer/dd", "chunk-00000", {"gpus": ["GPU"], "seconds": 1800.0})
            error = child.communicate(timeout=60)[1]
        finally:
            child.kill()
    assert child.returncode == 7
    assert "3.5 of 3.5 GPU hours are used; no further jobs are started" in error
