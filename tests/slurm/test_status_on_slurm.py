"""`z1g status` of a job on a real SLURM: queued, running, killed. Its work is made up."""

import re
from pathlib import Path

from cluster import Cluster
from workspace import LIMIT_S, ONE_PROCESS, ROOT, Workspace

from z1g.plan.status import Evidence, JobStatus, nodes_on_disk, status


def job(workspace: Workspace) -> JobStatus:
    """The only job of ingest, seen from this process."""
    found = status(workspace.results, nodes_on_disk(workspace.results), Evidence.gather(workspace.folder))
    (only,) = found.stages[0].jobs
    return only


def step(found: JobStatus) -> int:
    return found.beat.progress.step if found.beat is not None else 0


def test_a_job_is_queued_then_runs_and_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    cluster.heal()
    workspace = Workspace(tmp_path / "work", ONE_PROCESS)
    snakefile = workspace.folder / "Snakefile"
    verb = f"{ROOT}/tests/support/pausing_stages.py"
    snakefile.write_text(re.sub(r"\S+/slurm/verb\.py", verb, snakefile.read_text()))
    (workspace.folder / "hold-ingest").touch()
    for node in cluster.nodes:
        cluster.control("update", f"nodename={node}", "state=drain", "reason=test")
    try:
        with workspace.started("--until", "ingest", "--retries", "0", target="ablation_all", hold=[]) as process:
            cluster.wait(lambda: len(cluster.jobs()) == 1, "nothing is submitted", LIMIT_S)
            (slurm,) = cluster.jobs()
            queued = job(workspace)
            assert (queued.state, queued.slurm) == ("queued", slurm)
            assert queued.detail.startswith(f"SLURM {slurm}: ")
            for node in cluster.nodes:
                cluster.control("update", f"nodename={node}", "state=resume")
            cluster.wait(lambda: step(job(workspace)) == 4, "its step is not told", LIMIT_S)
            running = job(workspace)
            assert (running.state, running.slurm) == ("running", slurm)
            process.kill()
        workspace.end()
        cluster.wait(lambda: not cluster.jobs(), "the job does not end", LIMIT_S)
        killed = job(workspace)
        assert killed.state == "failed"
        assert killed.detail.endswith("at 4 of 10 (ingest); it starts again")
    finally:
        workspace.end()
        cluster.heal()
