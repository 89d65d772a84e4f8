"""Locks on GPUs and outputs, which the kernel releases when a process ends for any reason."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.paths import ROOT

from z1g.core.errors import UserError
from z1g.core.locks import waiting
from z1g.jobs.launch import ResourceRequest, devices
from z1g.jobs.leases import FOLDER, POOL, SHARED, gpu_pool, gpus_at_once, leased, leases, part_of_cores

JOB = """
import pathlib, sys, time
from z1g.jobs.leases import leased
n, notes, name = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
with leased(n) as (gpus, _):
    with (notes / "journal").open("a") as file:
        file.write(f"take {name} {','.join(gpus)}\\n")
        file.flush()
        while sys.argv[4] == "hold":
            time.sleep(0.01)
        file.write(f"give {name} {','.join(gpus)}\\n")
"""


@pytest.fixture(autouse=True)
def four_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(POOL, "0,1,2,3")
    monkeypatch.setenv(FOLDER, str(tmp_path / "leases"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def job(n: int, notes: Path, name: str, how: str = "go") -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", JOB, str(n), str(notes), name, how])


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def journal(folder: Path) -> list[list[str]]:
    file = folder / "journal"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def test_the_pool_is_set_by_the_user_or_the_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_pool() == ["0", "1", "2", "3"]
    monkeypatch.delenv(POOL)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert gpu_pool() == ["2", "5"]
    assert gpus_at_once(2) == gpus_at_once("2") == 2
    for wrong in (3, "-1", "all", None):
        with pytest.raises(UserError, match="up to 2"):
            gpus_at_once(wrong)


@pytest.mark.slow
def test_jobs_of_all_sizes_never_overlap(tmp_path: Path) -> None:
    jobs = [job(1 + i % 3, tmp_path, str(i)) for i in range(9)]
    assert [process.wait(120) for process in jobs] == [0] * 9
    free, counts = {"0", "1", "2", "3"}, {}
    for event, name, gpus in journal(tmp_path):
        held = set(gpus.split(","))
        if event == "take":
            assert held <= free, f"{name} takes what another job holds"
            counts[name] = len(held)
            free -= held
        else:
            free |= held
    assert counts == {str(i): 1 + i % 3 for i in range(9)}
    assert free == {"0", "1", "2", "3"}


def test_a_killed_job_frees_its_gpus(tmp_path: Path) -> None:
    greedy = job(4, tmp_path, "greedy", "hold")
    wait(lambda: len(journal(tmp_path)) == 1)
    waiting = job(2, tmp_path, "waiting")
    greedy.kill()
    assert greedy.wait(60) == -9
    assert waiting.wait(120) == 0
    assert [row[1] for row in journal(tmp_path)] == ["greedy", "waiting", "waiting"]


def test_a_lease_lasts_as_long_as_any_process_of_the_job(tmp_path: Path) -> None:
    with leased(3) as (gpus, descriptors):
        child = subprocess.Popen(["sleep", "60"], pass_fds=descriptors)
    late = job(2, tmp_path, "late")
    with leased(1) as (other, _):
        assert set(other).isdisjoint(gpus)
    assert journal(tmp_path) == []
    child.kill()
    child.wait()
    assert late.wait(120) == 0


def test_requests_larger_than_the_pool_are_errors() -> None:
    with pytest.raises(UserError, match="5 GPUs requested"), leased(5):
        pass


@pytest.mark.parametrize(("n", "visible"), [(2, "0,1"), (0, "")])
def test_a_process_sees_only_its_gpus(n: int, visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "")
    with devices(ResourceRequest(gpus=n, nodes=1, threads=1)) as descriptors:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
        assert len(descriptors) == n
    with pytest.raises(UserError, match="only `--profile slurm`"), devices(ResourceRequest(gpus=1, nodes=2, threads=1)):
        pass


def test_gpus_of_a_slurm_job_are_those_of_the_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with devices(ResourceRequest(gpus=1, nodes=1, threads=1)) as descriptors:
        assert descriptors == []
    with pytest.raises(UserError, match='SLURM gave job 7 "3"'), devices(ResourceRequest(gpus=2, nodes=1, threads=1)):
        pass


TURN = """
import logging, pathlib, sys, time
from z1g.core.locks import waiting
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
with waiting(pathlib.Path(sys.argv[1])) as (waited, _):
    print(waited, flush=True)
    time.sleep(600)
"""


def test_a_second_job_waits_for_its_turn(tmp_path: Path) -> None:
    lock = tmp_path / "turn"
    command = [sys.executable, "-c", TURN, str(lock)]
    with contextlib.ExitStack() as started:

        def start() -> subprocess.Popen[str]:
            process = started.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            started.callback(process.kill)
            return process

        first = start()
        assert first.stdout is not None
        assert first.stdout.readline() == "False\n"
        second = start()
        assert second.stdout is not None
        assert f"process {first.pid} job -: waiting" in second.stdout.readline()
        first.kill()
        assert second.stdout.readline() == "True\n"
        second.kill()
    with waiting(lock) as (waited, _):
        assert not waited


def test_jobs_may_share_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """GPUs with fewer jobs come first; a job never has one GPU twice; a third lease of a GPU does not exist."""
    monkeypatch.setenv(POOL, "0,1")
    monkeypatch.setenv(SHARED, "2")
    assert (leases(), gpus_at_once(1)) == (4, 2)
    with leased(1) as (first, _), leased(1) as (second, _), leased(2) as (both, _):
        assert {*first, *second} == {"0", "1"} == set(both)
        late = job(1, tmp_path, "late")
        assert journal(tmp_path) == []
        with pytest.raises(UserError, match="3 GPUs requested"), leased(3):
            pass
    assert late.wait(120) == 0
    with leased(1) as (one, _), leased(2) as (pair, _), leased(1) as (other, _):
        assert set(pair) == {"0", "1"}
        assert one != other


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "65", "1.5"])
def test_a_number_of_jobs_that_cannot_be(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARED, wrong)
    with pytest.raises(UserError, match=f"{SHARED}={wrong}: give a number of jobs from 1 to 64"):
        leases()
    monkeypatch.setenv(SHARED, "")
    assert leases() == 4


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.integers(1, 64),
    gpus=st.integers(0, 4),
    cores=st.integers(1, 256),
    pool=st.integers(4, 8),
    each=st.integers(1, 9),
)
def test_jobs_that_share_gpus_share_cores(asked: int, gpus: int, cores: int, pool: int, each: int) -> None:
    part = part_of_cores(asked, gpus, cores, pool * each)
    assert 1 <= part <= asked
    assert part_of_cores(asked, gpus, None, pool * each) == part_of_cores(asked, gpus, cores, 0) == asked
    if not gpus:
        assert part == asked
    elif part > 1:
        # As many such jobs as the leases are enough for have cores.
        assert pool * each // gpus * part <= cores
