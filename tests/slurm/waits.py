"""Waiting for states of jobs and Snakemake, with errors after LIMIT_S."""

import subprocess

from cluster import Cluster
from workspace import HOLD, LIMIT_S, Workspace


def wait_until_held(cluster: Cluster, workspace: Workspace, step: int = HOLD) -> None:
    """Wait until stage 1 pauses before a step."""
    cluster.wait(lambda: workspace.held(step), f"step {step} is not reached", LIMIT_S)


def wait_until_requeued(cluster: Cluster, job: str) -> None:
    """Wait until SLURM has requeued the job."""
    cluster.wait(lambda: cluster.job(job)["Restarts"] == "1", "the job is not requeued", LIMIT_S)


def finish(process: "subprocess.Popen[str]", workspace: Workspace) -> None:
    """Wait until Snakemake ends and assert that it succeeded."""
    assert process.wait(timeout=LIMIT_S) == 0, workspace.output()[-5000:]
