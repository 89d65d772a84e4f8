"""Faults of Snakemake itself. Every case must end with the results of the reference run."""

import signal

from cluster import Cluster
from same import assert_same
from waits import finish, wait_until_held
from workspace import HOLD, LIMIT_S, Workspace


def test_two_snakemakes_at_once(cluster: Cluster, workspace: Workspace, reference: Workspace, goal: str) -> None:
    """The second one fails and submits nothing; the first one is not affected."""
    with workspace.started(target=goal, hold=[HOLD]) as process:
        wait_until_held(cluster, workspace)
        job = cluster.running("autodecoder")
        assert "cannot be locked" in workspace.run(target=goal, fails=True)
        assert cluster.jobs() == [job]
        workspace.release(HOLD)
        finish(process, workspace)
    assert workspace.resumed_from() is None
    assert_same(workspace, reference)


def test_snakemake_is_killed_and_started_again_while_its_job_runs(
    cluster: Cluster, workspace: Workspace, reference: Workspace, goal: str
) -> None:
    """The new job waits for the old one and uses its outputs: no output is written twice."""
    with workspace.started(target=goal, hold=[HOLD]) as process:
        wait_until_held(cluster, workspace)
        first = cluster.running("autodecoder")
        process.kill()
    assert "--unlock" in workspace.run(target=goal, fails=True)
    workspace.run("--unlock", target=goal)
    with workspace.started(target=goal, hold=[HOLD]) as process:
        cluster.wait(lambda: ": waiting" in workspace.log(), "the second job does not wait", LIMIT_S)
        workspace.release(HOLD)
        finish(process, workspace)
    assert "another job has written" in workspace.log()
    assert cluster.job(first)["JobState"] == "COMPLETED"
    assert_same(workspace, reference)


def test_snakemake_is_killed_and_started_again_when_its_job_has_ended(
    cluster: Cluster, workspace: Workspace, reference: Workspace, goal: str
) -> None:
    """The job continues to its end without Snakemake."""
    with workspace.started(target=goal, hold=[HOLD]) as process:
        wait_until_held(cluster, workspace)
        job = cluster.running("autodecoder")
        process.kill()
    workspace.release(HOLD)
    cluster.wait(lambda: cluster.job(job)["JobState"] == "COMPLETED", "the job does not end", LIMIT_S)
    assert_same(workspace, reference)
    workspace.run("--unlock", target=goal)
    workspace.run(target=goal)
    assert_same(workspace, reference)


def test_canceled_jobs_stay_canceled(cluster: Cluster, workspace: Workspace, reference: Workspace, goal: str) -> None:
    """Ctrl-C cancels jobs, also while states are queried; one that writes a checkpoint must not requeue itself."""
    hold = workspace.folder / "hold-query"
    with workspace.started(target=goal, hold=[HOLD]) as process:
        wait_until_held(cluster, workspace)
        job = cluster.running("autodecoder")
        hold.touch()
        cluster.wait((workspace.folder / "querying").exists, "no state is queried", LIMIT_S)
        process.send_signal(signal.SIGINT)
        cluster.wait(lambda: cluster.job(job)["JobState"] != "RUNNING", "the job is not canceled", 120)
        hold.unlink()
        process.wait(timeout=LIMIT_S)
    cluster.wait(lambda: not cluster.jobs(), "jobs are left", LIMIT_S)
    assert workspace.steps_done() == HOLD + 1
    workspace.run(target=goal)
    assert workspace.resumed_from() == HOLD + 1
    assert_same(workspace, reference)
