"""Two processes with half the batch each end where one process with the whole batch does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ddp_cases import CASES, train
from helpers import fill, plan, stage_path, without_seconds
from safetensors.torch import load_file

import z1g
from z1g.files import read_jsonl
from z1g.stages import StageFolder, autodecoder

TESTS = Path(__file__).parent


def stage_1(root: Path) -> Path:
    """A real stage 1, ready to be trained."""
    planned = plan(root, autodecoder={"codes": {"kind": "optimised"}})
    fill(planned)
    return stage_path(planned, "autodecoder")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("ddp")
    paths = [str(TESTS), str(Path(z1g.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(TESTS / "ddp_cases.py"), str(folder), str(stage_1(folder / "stage"))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    return folder, [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(case: str, ranks: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    folder, (first, second) = ranks
    torch.testing.assert_close(second[case], first[case], atol=0, rtol=0)
    alone = train(case, tmp_path)
    torch.testing.assert_close(first[case], alone, atol=1e-6, rtol=0)
    ours, theirs = (without_seconds(read_jsonl(path / "history.jsonl")) for path in (tmp_path, folder / case))
    assert [row["step"] for row in theirs] == [row["step"] for row in ours]
    # A mean of roots is not the root of a mean, so only means of means are compared.
    for name in ("loss", "gradient_norm", "lr"):
        assert [row.get(name) for row in theirs] == pytest.approx([row.get(name) for row in ours], rel=1e-4), name


def test_training_changed_something(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    for case, (make, _) in CASES.items():
        start = dict(make().named_parameters())
        assert all(not torch.equal(ranks[1][0][case][name], value) for name, value in start.items()), case
    codes = ranks[1][0]["codes"]
    # An object that comes twice in a batch is visited once.
    assert 30 < codes["visits"].sum() <= 40


def test_sigterm_to_one_rank_stops_both(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    for ended in ranks[1]:
        assert "stopped after step 5" in ended["preempted"]
        torch.testing.assert_close(ended["resumed"], ranks[1][0]["toy"], atol=0, rtol=0)


def test_stage_1_on_two_processes(ranks: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    assert [ended["stage"] for ended in ranks[1]] == [0, 0]
    alone = stage_1(tmp_path)
    autodecoder.run(StageFolder.open(alone), threads=1)
    (together,) = (ranks[0] / "stage" / "results" / "autodecoder").iterdir()
    for name in ("codes.safetensors", "heads.safetensors"):
        # Adam divides by the size of gradients, so rounding in those near zero shows in the first steps.
        ours, theirs = (load_file(folder / "model" / name) for folder in (alone, together))
        torch.testing.assert_close(theirs, ours, atol=2e-4, rtol=0)
    rows = [without_seconds(read_jsonl(folder / "history.jsonl")) for folder in (alone, together)]
    for ours, theirs in zip(*rows, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-3)
