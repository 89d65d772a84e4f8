"""What goes wrong on clusters. Every case must end with the results of an undisturbed run."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from safetensors.torch import load_file
from workspace import ASKED, Workspace

from z1g.files import read_jsonl

SLOW_S = 0.4
"""A step of training, long enough to be hit in the middle: 40 steps take 16 seconds."""
ONE_PROCESS: dict[str, Any] = {
    stage: {**asked, "gpus": 0, "partition": "day", "memory_mb": 1000} for stage, asked in ASKED.items()
}


@pytest.fixture(scope="module")
def undisturbed(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Stage 1 in one process, without SLURM."""
    workspace = Workspace(tmp_path_factory.mktemp("undisturbed"), ONE_PROCESS)
    workspace.take_data_from(finished)
    command = workspace.command("--until", "autodecoder", profile="local")
    subprocess.run(command, cwd=workspace.folder, env=workspace.environment(), check=True, capture_output=True)
    return workspace


@pytest.fixture
def workspace(finished: Workspace, undisturbed: Workspace, tmp_path: Path) -> Workspace:
    """Data as in the undisturbed run, nothing trained."""
    workspace = Workspace(tmp_path / "work", ONE_PROCESS)
    workspace.take_data_from(finished)
    return workspace


def target(undisturbed: Workspace) -> str:
    return f"results/autodecoder/{undisturbed.stage('autodecoder').name}/history.jsonl"


def assert_same(workspace: Workspace, undisturbed: Workspace) -> None:
    ours, theirs = workspace.stage("autodecoder"), undisturbed.stage("autodecoder")
    names = sorted(file.name for file in (theirs / "model").glob("*.safetensors"))
    assert names
    for name in names:
        one, other = load_file(ours / "model" / name), load_file(theirs / "model" / name)
        assert all(one[key].equal(other[key]) for key in other), name
    losses = [[row.get("loss") for row in read_jsonl(stage / "history.jsonl")] for stage in (ours, theirs)]
    assert losses[0] == losses[1]
    assert not list(workspace.results.rglob("*.tmp"))


def wait_for_steps(cluster: Cluster, workspace: Workspace, steps: int) -> None:
    cluster.wait(lambda: workspace.steps_done() >= steps, f"{steps} steps are not reached", 90)


def finish(process: "subprocess.Popen[str]", workspace: Workspace) -> None:
    assert process.wait(timeout=240) == 0, workspace.said()[-5000:]


def starts(workspace: Workspace) -> list[int]:
    """Steps from which the job that finished resumed."""
    text = (workspace.stage("autodecoder") / "logs/autodecoder.log").read_text()
    return [int(step) for step in re.findall(r"resumed \S+ from step (\d+)", text)]


def kill_job(cluster: Cluster, workspace: Workspace) -> None:
    (verb,) = workspace.verbs("autodecoder")
    verb.kill()


def kill_controller(cluster: Cluster, workspace: Workspace) -> None:
    cluster.kill_controller()
    time.sleep(8)
    cluster.start_controller()


def lose_node(cluster: Cluster, workspace: Workspace) -> None:
    job = cluster.running("autodecoder")
    assert job is not None
    node = cluster.job(job)["NodeList"]
    cluster.control("update", f"nodename={node}", "state=down", "reason=test")
    cluster.wait(lambda: cluster.job(job)["JobState"] != "RUNNING", "the job is not ended")
    cluster.control("update", f"nodename={node}", "state=resume")


def preempt(cluster: Cluster, workspace: Workspace) -> None:
    """Urgent work takes all cores of both nodes for a moment."""
    command = ["sbatch", "--wait", "-p", "urgent", "-N", "2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1"]
    subprocess.run(command, check=True, capture_output=True, cwd=workspace.folder, timeout=120)


@pytest.mark.parametrize(("fault", "resumes"), [
    (kill_job, True), (kill_controller, False), (lose_node, True), (preempt, True),
])  # fmt: skip
def test_training_survives(
    fault: Callable[[Cluster, Workspace], None],
    resumes: bool,
    cluster: Cluster,
    workspace: Workspace,
    undisturbed: Workspace,
) -> None:
    with workspace.started(target=target(undisturbed), step_s=SLOW_S) as process:
        wait_for_steps(cluster, workspace, 5)
        fault(cluster, workspace)
        finish(process, workspace)
    assert_same(workspace, undisturbed)
    assert bool(starts(workspace)) == resumes


def test_a_time_limit_shorter_than_the_training(
    cluster: Cluster, finished: Workspace, undisturbed: Workspace, tmp_path: Path
) -> None:
    """The job is warned, checkpoints, and queues itself again; it never counts as failed."""
    minute = {**ONE_PROCESS, "autodecoder": {**ONE_PROCESS["autodecoder"], "minutes": 1}}
    workspace = Workspace(tmp_path / "work", minute)
    workspace.take_data_from(finished)
    with workspace.started("--retries", "0", target=target(undisturbed), step_s=2.0) as process:
        finish(process, workspace)
    assert_same(workspace, undisturbed)
    (job,) = re.findall(r"SLURM jobid (\d+)", workspace.said())
    assert int(cluster.job(job)["Restarts"]) >= 1
    assert starts(workspace)


def test_snakemake_killed_and_started_again_while_its_job_runs(
    cluster: Cluster, workspace: Workspace, undisturbed: Workspace
) -> None:
    """The second job waits for the first one and finds its work done: no output is written twice."""
    goal = target(undisturbed)
    with workspace.started(target=goal, step_s=SLOW_S) as process:
        wait_for_steps(cluster, workspace, 5)
        process.kill()
    refused = subprocess.run(
        workspace.command(target=goal),
        cwd=workspace.folder,
        env=workspace.environment(),
        capture_output=True,
        text=True,
    )
    assert refused.returncode != 0
    assert "--unlock" in refused.stdout + refused.stderr
    workspace.run("--unlock", target=goal)
    workspace.run(target=goal, timeout=240)
    said = (workspace.stage("autodecoder") / "logs/autodecoder.log").read_text()
    assert "waiting for it" in said
    assert "another job has made" in said
    assert_same(workspace, undisturbed)


def test_two_snakemakes_at_once(cluster: Cluster, workspace: Workspace, undisturbed: Workspace) -> None:
    goal = target(undisturbed)
    with workspace.started(target=goal, step_s=SLOW_S) as process:
        wait_for_steps(cluster, workspace, 5)
        again = subprocess.run(
            workspace.command(target=goal), cwd=workspace.folder, env=workspace.environment(),
            capture_output=True, text=True,
        )  # fmt: skip
        assert again.returncode != 0
        assert "cannot be locked" in again.stdout + again.stderr
        finish(process, workspace)
    assert_same(workspace, undisturbed)


def test_cancelled_jobs_stay_cancelled(cluster: Cluster, workspace: Workspace, undisturbed: Workspace) -> None:
    """Ctrl-C cancels the jobs; one that checkpoints on its way out must not queue itself again."""
    with workspace.started(target=target(undisturbed), step_s=SLOW_S) as process:
        wait_for_steps(cluster, workspace, 5)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    cluster.wait(lambda: not cluster.jobs("PD,R,CG"), "jobs are left", 30)
    assert workspace.steps_done() >= 5
    workspace.run(target=target(undisturbed))
    assert_same(workspace, undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
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


def test_a_full_disk(cluster: Cluster, workspace: Workspace, undisturbed: Workspace, small_disk: Path) -> None:
    """The job fails with one line that says so, nothing half-written is left, and with room it ends as ever."""
    stage = workspace.results / "autodecoder"
    stage.symlink_to(small_disk)
    goal = target(undisturbed)
    done = subprocess.run(
        workspace.command("--retries", "0", target=goal), cwd=workspace.folder, env=workspace.environment(),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    logs = "".join(file.read_text() for file in (workspace.folder / ".snakemake/slurm_logs").rglob("*.log"))
    assert "disk is full" in done.stdout + done.stderr + logs
    assert not list(small_disk.rglob("*.tmp"))
    remount(small_disk, "size=64m")
    workspace.run(target=goal)
    assert_same(workspace, undisturbed)


def test_read_only_results(cluster: Cluster, workspace: Workspace, undisturbed: Workspace, small_disk: Path) -> None:
    remount(small_disk, "ro")
    (workspace.results / "autodecoder").symlink_to(small_disk)
    done = subprocess.run(
        workspace.command(target=target(undisturbed)), cwd=workspace.folder, env=workspace.environment(),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "Read-only file system" in said
    assert "Traceback" not in said
    assert not cluster.jobs("PD,R")
