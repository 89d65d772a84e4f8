"""Benchmark of several GPUs: rows, figures against arithmetic by hand, and processes on a CPU."""

import json
import math
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.builders import experiment
from support.watched import PRELOADED

from z1g.bench.balls import RADIUS, ball
from z1g.bench.scaling import chunks, rows
from z1g.bench.scaling import rank as one_rank
from z1g.bench.scaling.job import Job
from z1g.bench.scaling.rows import Request, Row, measure, summary
from z1g.bench.scaling.table import markdown
from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.core.files import read_json, write_json
from z1g.jobs import launch
from z1g.jobs.leases import POOL

JOB = Job("unet", "tiny", None, 4, 1, 2)


def of_rank(step: list[float], own: list[float]) -> dict[str, Any]:
    """Figures of a rank: gradients of 3 GB, of which an average takes 40 ms and an all-reduce 30 ms."""
    return {
        "seconds": {"step": step, "own": own, "average": [0.04, 0.04], "transfer": [0.03, 0.03]},
        "warm_up_s": 1.0,
        "memory_mib": 7,
        "replayed": True,
        "parameters": 750_000_000,
        "gradient_bytes": 3_000_000_000,
        "optimizer_bytes": 2**20,
        "backend": "nccl",
        "device": "H100",
        "versions": {},
    }


@pytest.fixture(autouse=True)
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(POOL, "")


def test_the_slowest_rank_counts() -> None:
    ranks = [of_rank([0.50, 0.54], [0.49, 0.50]), of_rank([0.51, 0.52], [0.50, 0.52])]
    row = summary(Row(JOB, 2, "weak"), 4, ranks)
    assert row["batch"] == 8
    assert row["step_s"] == {"min": 0.51, "median": 0.525, "max": 0.54}
    assert row["samples_per_s"] == pytest.approx(
        {"min": 8 / 0.54, "median": (8 / 0.51 + 8 / 0.54) / 2, "max": 8 / 0.51}
    )
    assert row["average_adds_s"] == pytest.approx({"min": 0.01, "median": 0.015, "max": 0.02})
    assert row["rank_step_s"] == pytest.approx([0.495, 0.51])
    assert row["average_hidden"] == pytest.approx(1 - 0.015 / 0.04, abs=1e-3)
    # In a ring of two, every GPU sends half of its values to be added and the other half's sums back: all of its bytes.
    assert row["sent_mib_a_step"] == pytest.approx(3e9 / 2**20, abs=1e-3)
    assert row["link_gb_per_s"]["median"] == pytest.approx(100)


def test_rows_have_one_gpu_first_and_a_default_batch() -> None:
    request = Request(gpus=[4, 2, 1], stages=["autodecoder", "infer"], sampling_steps=5)
    expected = [
        ("autodecoder", 1, "one"), ("autodecoder", 2, "weak"), ("autodecoder", 4, "weak"),
        ("autodecoder", 2, "strong"), ("autodecoder", 4, "strong"),
        ("infer", 1, "one"), ("infer", 2, "chunks"), ("infer", 4, "chunks"),
    ]  # fmt: skip
    assert [(row.job.stage, row.gpus, row.mode) for row in request.rows()] == expected
    assert [row.job.batch for row in request.rows()] == [8] * 5 + [16] * 3
    assert [row.job.steps for row in request.rows()] == [6] * 5 + [5] * 3


def test_every_row_is_written_and_failures_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Four GPUs run at 3.2 times the speed of one; the batch of two GPUs cannot be divided."""

    def run_ranks(command: list[str], world: int, environment: dict[str, str], inherited: list[int]) -> int:
        job, folder = json.loads(command[-2]), Path(command[-1])
        assert environment["CUDA_VISIBLE_DEVICES"] == ""
        assert "RANK" not in environment
        if job["batch"] == 1:
            write_json(folder / "rank1.json", {"error": "OutOfMemoryError: no room"})
            return 1
        for rank in range(world):
            seconds = [0.4, 0.4] if world == 1 else [0.5, 0.5]
            write_json(folder / f"rank{rank}.json", of_rank(seconds, seconds))
        return 0

    monkeypatch.setattr(rows, "run_ranks", run_ranks)
    monkeypatch.setenv("RANK", "7")
    out = tmp_path / "scaling.json"
    figures = measure(Request([3, 4], ["unet"], "tiny", steps=1, repeats=2, out=out))
    one, weak_3, weak_4, strong_3, strong_4 = figures["rows"]
    assert "efficiency" not in one
    assert weak_4["efficiency"] == pytest.approx({"min": 0.8, "median": 0.8, "max": 0.8})
    assert weak_3["samples_per_s"]["median"] == pytest.approx(24)
    assert strong_3["error"] == "UserError: a batch of 4 does not divide over 3 GPUs"
    assert strong_4["error"] == "RuntimeError: OutOfMemoryError: no room"
    assert read_json(out) == figures
    assert figures["device"] == "H100"
    lines = markdown(figures).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "| unet, weak | 4 | 4 | 32 | 80.0 % | 500.0 ms | 40.0, 0.0 ms | 4,292 MiB | 0.0 GiB |" in lines
    assert "no room" in lines[-1]


def test_nothing_starts_after_the_time_limit() -> None:
    figures = measure(Request([2], ["unet"], "tiny", seconds=0))
    assert [row["error"] for row in figures["rows"]] == ["TimeoutError: no time left; raise --seconds"] * 3


def test_what_cannot_be_measured_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="unknown codes; available are autodecoder, unet, fit, infer"):
        measure(Request([1], ["codes"], "tiny"))
    monkeypatch.setenv(POOL, "0,1")
    with pytest.raises(UserError, match="--gpus 4: this machine shares 2 GPUs"):
        measure(Request([1, 4], ["unet"], "tiny"))


def test_balls_have_exact_depth(tmp_path: Path) -> None:
    """Unprojected by hand, every covered pixel of every input view is on the sphere, and its color is opaque."""
    config = experiment(tmp_path)
    scene = ball(config, 24, seed=3)
    assert scene.depth is not None
    focal = 12 / math.tan(math.radians(scene.fov_y_deg) / 2)
    covered = 0
    for view in range(6):
        c2w, depth = scene.c2w[1 + view].double().numpy(), scene.depth[view].double().numpy()
        for y, x in np.argwhere(depth > 0):
            local = np.array([(x + 0.5 - 12) / focal, (y + 0.5 - 12) / focal, 1.0]) * depth[y, x]
            assert np.linalg.norm(c2w[:3, :3] @ local + c2w[:3, 3]) == pytest.approx(RADIUS, abs=1e-5)
        np.testing.assert_array_equal(scene.rgba[1 + view, ..., 3], np.where(depth > 0, 255, 0))
        covered += int((depth > 0).sum())
    assert covered > 6 * 100
    other = ball(config, 24, seed=4)
    assert (other.rgba[1] != scene.rgba[1]).any()


def test_a_process_leases_its_gpu_before_anything_looks_for_one() -> None:
    """Importing diffusers does, and the visible GPUs are fixed from then on: all processes would share the first."""
    code = "import sys, z1g.bench.scaling.rank; sys.exit(bool({'torch', 'diffusers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["fit", "infer"])
def test_chunks_are_measured(stage: str) -> None:
    """All processes begin every chunk together, and each has other objects."""
    met: list[str] = []
    figures = chunks.measure(Job(stage, "tiny", None, 2, 2, 3), 1, 2, lambda: met.append("here"))
    assert len(met) == len(figures["seconds"]["step"]) == 3
    assert min(figures["seconds"]["step"]) > 0


def forked_ranks(command: Sequence[str], world: int, environment: Mapping[str, str], inherited: Sequence[int]) -> int:
    """`run_ranks` with forks of a server that has imported everything in place of processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    shared = {**environment, **launch._meeting(world, world, "127.0.0.1")}
    variables = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
    ranks = [context.Process(target=as_rank, args=(list(command[3:]), own)) for own in variables]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    return max(process.exitcode or 0 for process in ranks)


def as_rank(words: list[str], environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["rank", *words]
    torch.set_num_threads(1)
    one_rank.main()


@pytest.mark.slow
def test_two_processes_are_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is the reference is a process as users start it, the two are forked."""
    real = rows.run_ranks
    monkeypatch.setattr(rows, "run_ranks", lambda command, n, *how: (real, forked_ranks)[n > 1](command, n, *how))
    out = tmp_path / "scaling.json"
    options = ["--size", "tiny", "--gpus", "2", "--stages", "unet", "--modes", "weak", "--steps", "1", "--repeats", "2"]
    assert main(["bench", "scaling", *options, "--out", str(out), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert read_json(out) == figures
    one, two = figures["rows"]
    assert "error" not in one, one
    assert "error" not in two, two
    assert (two["backend"], two["batch"], one["batch"]) == ("gloo", 8, 4)
    expected = two["samples_per_s"]["median"] / one["samples_per_s"]["median"] / 2
    assert two["efficiency"]["median"] == pytest.approx(expected, abs=1e-3)
    # float32 gradients, and Adam's two moments
    assert two["gradients_mib"] == pytest.approx(two["parameters_m"] * 1e6 * 4 / 2**20, abs=1e-2)
    assert two["optimizer_mib"] == pytest.approx(2 * two["gradients_mib"], rel=0.05)
    assert figures["versions"]["torch"] == torch.__version__.partition("+")[0]
    main(["bench", "scaling", "--table", str(out)])
    assert capsys.readouterr().out.count("\n| unet") == 2
