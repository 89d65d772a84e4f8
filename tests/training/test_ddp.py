"""Processes that share a batch give the weights of one process with the whole batch."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.builders import fill, plan, stage_path, without_seconds
from support.ddp_cases import CASES, fork_ranks, run_on_cpu, train
from support.paths import TESTS

import z1g
from z1g.core.files import read_jsonl
from z1g.plan.folder import StageFolder
from z1g.stages import autodecoder

pytestmark = pytest.mark.slow
STAGES: dict[str, dict[str, Any]] = {
    "optimized": {"codes": {"kind": "optimized"}},
    "encoder": {"codes": {"kind": "encoder"}},
}
"""Real stages 1, by the source of their codes; the encoder of the micro model is trained."""
BF16 = 5e-3
"""Bound of differences of weights trained in bfloat16, a quarter of a step of Adam; ten steps move weights by 0.11."""
ROUNDED = ("bf16", "bfloat16_moments", "int8_moments")
Ranks = tuple[Path, list[dict[str, Any]]]


def stage_1(root: Path, name: str, batch: int = 2) -> Path:
    """Folder of a real stage 1 before training."""
    planned = plan(root, autodecoder={**STAGES[name], "train": {"batch_size": batch}})
    fill(planned)
    return stage_path(planned, "autodecoder")


def launch(folder: Path, n: int) -> list[dict[str, Any]]:
    """Run `ddp_cases.py` in `n` processes; returns the final state of each."""
    paths = [str(TESTS), str(Path(z1g.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    command += [
        str(TESTS / "support" / "ddp_cases.py"),
        str(folder),
        *(str(stage_1(folder / name, name, n)) for name in STAGES),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=inherited, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    return ended_ranks(folder, n)


def fork(folder: Path, n: int, stages: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Like `launch` on a CPU, by the launcher as a function, whose processes are forks of a server."""
    fork_ranks(n, run_on_cpu, str(folder), *(str(stage_1(folder / name, name, n)) for name in stages))
    return ended_ranks(folder, n)


def ended_ranks(folder: Path, n: int) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(n)]


def bounds(case: str, exact: dict[str, float]) -> dict[str, float]:
    """Tolerances of a case: rounding of float32 in `exact`, or that of bfloat16 and of compact moments."""
    return {"atol": BF16, "rtol": 0} if case in ROUNDED else exact


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    folder = tmp_path_factory.mktemp("ddp")
    return folder, fork(folder, 2, STAGES)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(case: str, ranks: Ranks, tmp_path: Path) -> None:
    folder, (first, second) = ranks
    torch.testing.assert_close(second[case], first[case], atol=0, rtol=0)
    alone = train(case, tmp_path)
    torch.testing.assert_close(first[case], alone, **bounds(case, {"atol": 1e-6, "rtol": 0}))
    ours, theirs = (without_seconds(read_jsonl(path / "history.jsonl")) for path in (tmp_path, folder / case))
    assert [row["step"] for row in theirs] == [row["step"] for row in ours]
    # The mean of roots is not the root of a mean, so only means of means are compared.
    for name in ("loss", "gradient_norm", "lr"):
        assert [row.get(name) for row in theirs] == pytest.approx(
            [row.get(name) for row in ours], rel=1e-2 if case in ROUNDED else 1e-4
        ), name


def test_four_processes_equal_one(tmp_path: Path) -> None:
    (tmp_path / "four").mkdir()
    ended = fork(tmp_path / "four", 4)
    for case in CASES:
        for other in ended[1:]:
            torch.testing.assert_close(other[case], ended[0][case], atol=0, rtol=0)
        alone = train(case, tmp_path / case)
        torch.testing.assert_close(ended[0][case], alone, **bounds(case, {"atol": 1e-6, "rtol": 0}))


def test_training_changed_something(ranks: Ranks) -> None:
    for case, (make, _) in CASES.items():
        start = dict(make().named_parameters())
        assert all(not torch.equal(ranks[1][0][case][name], value) for name, value in start.items()), case
    codes = ranks[1][0]["codes"]
    # An object that occurs twice in a batch is visited once.
    assert 30 < codes["visits"].sum() <= 40


def test_sigterm_to_one_rank_stops_both(ranks: Ranks) -> None:
    for ended in ranks[1]:
        assert "stopped after step 6" in ended["preempted"]
        torch.testing.assert_close(ended["resumed"], ranks[1][0]["toy"], atol=0, rtol=0)


@pytest.mark.parametrize("name", STAGES)
def test_stage_1_on_two_processes(name: str, ranks: Ranks, tmp_path: Path) -> None:
    assert [ended["stages"] for ended in ranks[1]] == [[0, 0], [0, 0]]
    alone = stage_1(tmp_path, name)
    autodecoder.run(StageFolder.open(alone), threads=1)
    (together,) = (ranks[0] / name / "results" / "autodecoder").iterdir()
    files = ["heads.safetensors", "vae/diffusion_pytorch_model.safetensors"]
    for file in [*files, *(["codes.safetensors"] if name == "optimized" else [])]:
        # Adam amplifies rounding of gradients near zero, by at most a tenth of a step of the codes.
        ours, theirs = (load_file(folder / "model" / file) for folder in (alone, together))
        torch.testing.assert_close(theirs, ours, atol=1e-3 if file == "codes.safetensors" else 2e-4, rtol=0)
    rows = [without_seconds(read_jsonl(folder / "history.jsonl")) for folder in (alone, together)]
    for ours, theirs in zip(*rows, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("n", [2, 4])
def test_gpus_over_nccl(n: int, tmp_path: Path) -> None:
    """The same cases with one GPU per process give the weights of a single process on the first GPU."""
    if torch.cuda.device_count() < n:
        pytest.skip(f"needs {n} GPUs on this machine")
    ended = launch(tmp_path / "together", n)
    first = ended[0]
    assert {other["backend"] for other in ended} == {"nccl"}
    assert [other["stages"] for other in ended] == [[0, 0]] * n
    for case in CASES:
        for other in ended[1:]:
            torch.testing.assert_close(other[case], first[case], atol=0, rtol=0)
        alone = train(case, tmp_path / case)
        torch.testing.assert_close(first[case], alone, **bounds(case, {"atol": 1e-5, "rtol": 1e-4}))
    for name in STAGES:
        alone = stage_1(tmp_path / "alone" / name, name, n)
        autodecoder.run(StageFolder.open(alone), threads=1)
        (together,) = (tmp_path / "together" / name / "results" / "autodecoder").iterdir()
        ours, theirs = (read_jsonl(folder / "history.jsonl")[-1] for folder in (alone, together))
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-2)
