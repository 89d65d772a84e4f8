"""What goes wrong on clusters. Every case must end with the results of an undisturbed run."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from safetensors.torch import load_file
from workspace import ASKED, LIMIT_S, Workspace

from z1g.files import read_jsonl

HOLD = 5
"""Where nothing else is said: training stands still before this step, one step after a checkpoint."""
ONE_PROCESS: dict[str, Any] = {
    stage: {**asked, "gpus": 0, "nodes": 1, "partition": "day", "memory_mb": 1000}
    if stage in ("autodecoder", "unet")
    else {**asked, "gpus": 0, "partition": "day", "memory_mb": 1000}
    for stage, asked in ASKED.items()
}


@pytest.fixture(scope="module")
def undisturbed(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Stage 1 in one process, without SLURM."""
    workspace = Workspace(tmp_path_factory.mktemp("undisturbed"), ONE_PROCESS)
    workspace.take_data_from(finished)
    workspace.run("--until", "autodecoder", profile="local")
    return workspace


@pytest.fixture
def workspace(cluster: Cluster, finished: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    """Data as in the undisturbed run, nothing trained."""
    workspace = Workspace(tmp_path / "work", ONE_PROCESS)
    workspace.take_data_from(finished)
    yield workspace
    cluster.cancel()
    workspace.end()


@pytest.fixture
def goal(undisturbed: Workspace) -> str:
    """Stage 1's last output."""
    return f"results/autodecoder/{undisturbed.stage('autodecoder').name}/history.jsonl"


def assert_same(workspace: Workspace, undisturbed: Workspace) -> None:
    ours, theirs = workspace.stage("autodecoder"), undisturbed.stage("autodecoder")
    names = sorted(file.name for file in (theirs / "model").glob("*.safetensors"))
    assert names
    for name in names:
        one, other = load_file(ours / "model" / name), load_file(theirs / "model" / name)
        assert one.keys() == other.keys()
        assert all(one[key].equal(other[key]) for key in other), name
    losses = [[row.get("loss") for row in read_jsonl(stage / "history.jsonl")] for stage in (ours, theirs)]
    assert losses[0] == losses[1]
    assert not list(workspace.results.rglob("*.tmp"))


def wait_until_held(cluster: Cluster, workspace: Workspace, step: int = HOLD) -> None:
    cluster.wait(lambda: workspace.held(step), f"step {step} is not reached", LIMIT_S)


def finish(process: "subprocess.Popen[str]", workspace: Workspace) -> None:
    assert process.wait(timeout=LIMIT_S) == 0, workspace.said()[-5000:]


def resumed_from(workspace: Workspace) -> int | None:
    """The step from which the latest job resumed; None where it began at the beginning."""
    text = (workspace.stage("autodecoder") / "logs/autodecoder.log").read_text()
    found = re.search(r"resumed \S+ from step (\d+)", text)
    return int(found[1]) if found else None


def kill_job(cluster: Cluster, workspace: Workspace) -> None:
    (verb,) = workspace.verbs("autodecoder")
    verb.kill()


def lose_controller(cluster: Cluster, workspace: Workspace) -> None:
    """Training goes on while nobody listens."""
    cluster.kill_controller()
    workspace.release(FAULTS[0][0])
    wait_until_held(cluster, workspace, FAULTS[1][0])
    cluster.start_controller()


def lose_node(cluster: Cluster, workspace: Workspace) -> None:
    job = cluster.running("autodecoder")
    assert job is not None
    node = cluster.job(job)["NodeList"]
    cluster.control("update", f"nodename={node}", "state=down", "reason=test")
    cluster.wait(lambda: cluster.job(job)["Restarts"] == "1", "the job is not queued again", LIMIT_S)
    cluster.control("update", f"nodename={node}", "state=resume")


def preempt(cluster: Cluster, workspace: Workspace) -> None:
    """Urgent work takes all cores of both nodes for a moment."""
    command = ["sbatch", "--wait", "-p", "urgent", "-N", "2", "--exclusive", "-o", "/dev/null", "--wrap", "true"]
    subprocess.run(command, check=True, capture_output=True, cwd=workspace.folder, timeout=LIMIT_S)


FAULTS: tuple[tuple[int, Callable[[Cluster, Workspace], None], set[int | None]], ...] = (
    (1, lose_controller, {None}),
    (3, kill_job, {2}),
    (5, lose_node, {4, 6}),  # SLURM ends the job with SIGTERM or, where the node is really gone, with nothing
    (8, preempt, {9}),
)
"""Before which step something happens, what, and from where training may resume afterwards; None: it never stopped."""


def test_training_survives_one_fault_after_another(
    cluster: Cluster, workspace: Workspace, undisturbed: Workspace, goal: str
) -> None:
    resumed: list[int | None] = []
    with workspace.started(target=goal, hold=[step for step, _, _ in FAULTS]) as process:
        for step, fault, _ in FAULTS:
            wait_until_held(cluster, workspace, step)
            resumed.append(resumed_from(workspace))
            fault(cluster, workspace)
            workspace.release(step)
        finish(process, workspace)
    resumed.append(resumed_from(workspace))
    assert resumed[0] is None
    for (step, fault, allowed), found in zip(FAULTS, resumed[1:], strict=True):
        assert found in allowed, f"{fault.__name__} before step {step}"
    assert_same(workspace, undisturbed)


def test_a_time_limit_shorter_than_the_training(
    cluster: Cluster, workspace: Workspace, undisturbed: Workspace, goal: str
) -> None:
    """The job is warned, checkpoints, and queues itself again; it never counts as failed."""
    with workspace.started("--retries", "0", target=goal, hold=[HOLD]) as process:
        wait_until_held(cluster, workspace)
        job = cluster.running("autodecoder")
        assert job is not None
        whole = cluster.job(job)["TimeLimit"]
        hours, minutes, _ = (int(part) for part in cluster.job(job)["RunTime"].split(":"))
        cluster.control("update", f"jobid={job}", f"timelimit={60 * hours + minutes + 2}")
        cluster.wait(lambda: cluster.job(job)["Restarts"] == "1", "the job does not queue itself again", LIMIT_S)
        cluster.control("update", f"jobid={job}", f"timelimit={whole}")
        finish(process, workspace)
    assert_same(workspace, undisturbed)
    assert cluster.job(job)["Restarts"] == "1"
    assert resumed_from(workspace) == HOLD + 1


def test_a_second_snakemake_and_one_started_again_while_its_job_runs(
    cluster: Cluster, workspace: Workspace, undisturbed: Workspace, goal: str
) -> None:
    """A second one is refused. After kill -9 the new job waits for the old one: no output is written twice."""
    with workspace.started(target=goal, hold=[HOLD]) as process:
        wait_until_held(cluster, workspace)
        assert "cannot be locked" in workspace.run(target=goal, fails=True)
        process.kill()
    assert "--unlock" in workspace.run(target=goal, fails=True)
    workspace.run("--unlock", target=goal)
    with workspace.started(target=goal, hold=[HOLD]) as process:
        log = workspace.stage("autodecoder") / "logs/autodecoder.log"
        cluster.wait(lambda: "waiting for it" in log.read_text(), "the second job does not wait", LIMIT_S)
        workspace.release(HOLD)
        finish(process, workspace)
    assert "another job has made" in log.read_text()
    assert_same(workspace, undisturbed)


def test_cancelled_jobs_stay_cancelled(
    cluster: Cluster, workspace: Workspace, undisturbed: Workspace, goal: str
) -> None:
    """Ctrl-C cancels the jobs; one that checkpoints on its way out must not queue itself again."""
    with workspace.started(target=goal, hold=[HOLD]) as process:
        wait_until_held(cluster, workspace)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=LIMIT_S)
    cluster.wait(lambda: not cluster.jobs("PD,R,CG"), "jobs are left", LIMIT_S)
    assert workspace.steps_done() == HOLD + 1
    workspace.run(target=goal)
    assert_same(workspace, undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB to begin with."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_a_full_disk(
    cluster: Cluster, workspace: Workspace, undisturbed: Workspace, goal: str, small_disk: Path
) -> None:
    """The job fails with one line that says so, nothing half-written is left, and with room it ends as ever."""
    (workspace.results / "autodecoder").symlink_to(small_disk)
    said = workspace.run("--retries", "0", target=goal, fails=True)
    logs = "".join(file.read_text() for file in (workspace.folder / ".snakemake/slurm_logs").rglob("*.log"))
    assert "disk is full" in said + logs
    assert "Traceback" not in said + logs
    assert not list(small_disk.rglob("*.tmp"))
    remount(small_disk, "size=64m")
    workspace.run(target=goal)
    assert_same(workspace, undisturbed)


def test_read_only_results(cluster: Cluster, workspace: Workspace, goal: str, small_disk: Path) -> None:
    """Snakemake refuses at once; no job is submitted."""
    remount(small_disk, "ro")
    (workspace.results / "autodecoder").symlink_to(small_disk)
    said = workspace.run(target=goal, fails=True)
    assert "Read-only file system" in said
    assert "Traceback" not in said
    assert not cluster.jobs("PD,R")
