"""Faults of the cluster during training. Every case must end with the results of the reference run."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from same import assert_same
from waits import finish, wait_until_held, wait_until_requeued
from workspace import HOLD, LIMIT_S, Workspace


def test_a_killed_job(cluster: Cluster, workspace: Workspace, reference: Workspace, goal: str) -> None:
    """SIGKILL. Snakemake submits the job again, which continues from its checkpoint."""
    with workspace.started(target=goal, hold=[HOLD]) as process:
        wait_until_held(cluster, workspace)
        first = cluster.running("autodecoder")
        (verb,) = workspace.verbs("autodecoder")
        verb.kill()
        workspace.release(HOLD)
        finish(process, workspace)
    assert cluster.job(first)["JobState"] == "FAILED"
    assert workspace.resumed_from() == HOLD - 1
    assert_same(workspace, reference)


def test_the_controller_is_away(cluster: Cluster, workspace: Workspace, reference: Workspace, goal: str) -> None:
    """SIGKILL of slurmctld. Training continues while Snakemake's queries fail, and no work is repeated."""
    with workspace.started(target=goal, hold=[1, HOLD]) as process:
        wait_until_held(cluster, workspace, 1)
        job = cluster.running("autodecoder")
        cluster.kill_controller(job)
        workspace.release(1)
        wait_until_held(cluster, workspace)
        cluster.wait(lambda: "squeue failed" in workspace.queries(), "Snakemake does not query", LIMIT_S)
        cluster.start_controller()
        workspace.release(HOLD)
        finish(process, workspace)
    assert {query.split()[0] for query in workspace.queries()} == {"squeue"}
    assert cluster.job(job)["JobState"] == "COMPLETED"
    assert cluster.job(job)["Restarts"] == "0"
    assert workspace.resumed_from() is None
    assert_same(workspace, reference)


def test_a_node_goes_down(cluster: Cluster, workspace: Workspace, reference: Workspace, goal: str) -> None:
    """SLURM requeues the job, which was ended by SIGTERM, with a checkpoint, or by SIGKILL, without one."""
    with workspace.started("--retries", "0", target=goal, hold=[HOLD]) as process:
        wait_until_held(cluster, workspace)
        job = cluster.running("autodecoder")
        node = cluster.job(job)["NodeList"]
        cluster.control("update", f"nodename={node}", "state=down", "reason=test")
        wait_until_requeued(cluster, job)
        workspace.release(HOLD)
        finish(process, workspace)
    assert cluster.job(job)["JobState"] == "COMPLETED"
    assert cluster.job(job)["NodeList"] != node, "the node is still down"
    assert workspace.resumed_from() in {HOLD - 1, HOLD + 1}
    assert_same(workspace, reference)


def test_preemption(cluster: Cluster, workspace: Workspace, reference: Workspace, goal: str) -> None:
    """An urgent job takes all cores of both nodes for a moment: SIGTERM, a checkpoint, and requeueing."""
    urgent = ["sbatch", "--wait", "-p", "urgent", "-N", "2", "--exclusive", "-o", "/dev/null", "--wrap", "true"]
    with workspace.started("--retries", "0", target=goal, hold=[HOLD]) as process:
        wait_until_held(cluster, workspace)
        job = cluster.running("autodecoder")
        subprocess.run(urgent, check=True, capture_output=True, cwd=workspace.folder, timeout=LIMIT_S)
        finish(process, workspace)
    assert cluster.job(job)["JobState"] == "COMPLETED"
    assert cluster.job(job)["Restarts"] != "0"
    assert workspace.resumed_from() == HOLD + 1
    assert_same(workspace, reference)


def test_a_time_limit_shorter_than_the_training(
    cluster: Cluster, workspace: Workspace, reference: Workspace, goal: str
) -> None:
    """The job receives a signal, writes a checkpoint and requeues itself; it never counts as failed."""
    with workspace.started("--retries", "0", target=goal, hold=[HOLD]) as process:
        wait_until_held(cluster, workspace)
        job = cluster.running("autodecoder")
        whole = cluster.job(job)["TimeLimit"]
        hours, minutes, _ = (int(part) for part in cluster.job(job)["RunTime"].split(":"))
        cluster.control("update", f"jobid={job}", f"timelimit={60 * hours + minutes + 2}")
        wait_until_requeued(cluster, job)
        cluster.control("update", f"jobid={job}", f"timelimit={whole}")
        finish(process, workspace)
    assert cluster.job(job)["Restarts"] == "1"
    assert workspace.resumed_from() == HOLD + 1
    assert_same(workspace, reference)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of initially 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_a_full_disk(workspace: Workspace, reference: Workspace, goal: str, small_disk: Path) -> None:
    """The job fails with a one-line error and leaves no partial files; with more space, it succeeds."""
    (workspace.results / "autodecoder").symlink_to(small_disk)
    output = workspace.run("--retries", "0", target=goal, fails=True)
    logs = "".join(file.read_text() for file in (workspace.folder / ".snakemake/slurm_logs").rglob("*.log"))
    assert "disk is full" in output + logs
    assert "Traceback" not in output + logs
    assert not list(small_disk.rglob("*.tmp"))
    remount(small_disk, "size=64m")
    workspace.run(target=goal)
    assert_same(workspace, reference)


def test_read_only_results(
    cluster: Cluster, workspace: Workspace, reference: Workspace, goal: str, small_disk: Path
) -> None:
    """Snakemake fails at once and submits no job; once the disk is writable, it succeeds."""
    remount(small_disk, "size=64m,ro")
    (workspace.results / "autodecoder").symlink_to(small_disk)
    output = workspace.run(target=goal, fails=True)
    assert "Read-only file system" in output
    assert "Traceback" not in output
    assert not cluster.jobs()
    remount(small_disk, "rw")
    workspace.run(target=goal)
    assert_same(workspace, reference)
