"""`z1g status` of a job on a real SLURM: queued, running, killed."""

from cluster import Cluster
from waits import wait_until_held
from workspace import HOLD, LIMIT_S, TRAIN, Workspace

from z1g.plan.status import Evidence, JobStatus, nodes_on_disk, status


def job(workspace: Workspace) -> JobStatus:
    """Stage 1's job, seen from this process."""
    found = status(workspace.results, nodes_on_disk(workspace.results), Evidence.gather(workspace.folder))
    (only,) = next(stage.jobs for stage in found.stages if stage.node.stage == "autodecoder")
    return only


def test_a_job_is_queued_then_runs_and_is_killed(cluster: Cluster, workspace: Workspace, goal: str) -> None:
    for node in cluster.nodes:
        cluster.control("update", f"nodename={node}", "state=drain", "reason=test")
    with workspace.started(target=goal, hold=[HOLD]) as process:
        cluster.wait(lambda: len(cluster.jobs()) == 1, "nothing is submitted", LIMIT_S)
        (slurm,) = cluster.jobs()
        queued = job(workspace)
        assert (queued.state, queued.slurm) == ("queued", slurm)
        assert queued.detail.startswith(f"SLURM {slurm}: ")
        for node in cluster.nodes:
            cluster.control("update", f"nodename={node}", "state=resume")
        wait_until_held(cluster, workspace)
        cluster.wait(lambda: _step(job(workspace)) == HOLD, "its step is not told", LIMIT_S)
        running = job(workspace)
        assert (running.state, running.slurm) == ("running", slurm)
        assert running.beat is not None
        assert running.beat.progress.of == TRAIN["steps"]
        process.kill()
    (verb,) = workspace.verbs("autodecoder")
    verb.kill()
    cluster.wait(lambda: not cluster.jobs(), "the job does not end", LIMIT_S)
    killed = job(workspace)
    assert killed.state == "failed"
    assert killed.detail.endswith(
        f"at {HOLD} of {TRAIN['steps']} (autodecoder); it continues from step 4, 1 steps are lost"
    )


def _step(found: JobStatus) -> int:
    return found.beat.progress.step if found.beat is not None else 0
