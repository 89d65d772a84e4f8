"""`snakemake --profile slurm ablation_all` on a real SLURM: resources and logs of its jobs."""

import re

import pytest
from cluster import Cluster
from workspace import REQUESTED, Workspace

STAGES = tuple(REQUESTED)


@pytest.fixture(scope="module")
def jobs(cluster: Cluster, finished: Workspace) -> dict[str, dict[str, str]]:
    """SLURM's record of one job of each rule."""
    output = (finished.folder / "snakemake.out").read_text()
    logs = dict(re.findall(r"SLURM jobid (\d+) \(log: \S*?/rule_(\w+)/", output))
    return {rule: cluster.job(job) for job, rule in logs.items()}


def test_everything_runs_and_is_reported(finished: Workspace, jobs: dict[str, dict[str, str]]) -> None:
    assert (finished.results / "report.html").stat().st_size > 1000
    assert set(jobs) == set(STAGES), "collecting and reporting need no job"
    assert {record["JobState"] for record in jobs.values()} == {"COMPLETED"}
    assert {record["Restarts"] for record in jobs.values()} == {"0"}


@pytest.mark.parametrize("stage", STAGES)
def test_jobs_request_the_configured_resources(stage: str, jobs: dict[str, dict[str, str]]) -> None:
    requested, job = REQUESTED[stage], jobs[stage]
    assert job["Partition"] == requested.get("partition", "day")
    assert job["Account"] == requested.get("account", "(null)")
    assert job["TimeLimit"] == f"00:{requested['minutes']}:00"
    assert job["MinMemoryNode"] == f"{requested['memory_mb']}M"
    assert job["CPUs/Task"] == str(requested["threads"])
    assert job["NumNodes"] == str(requested.get("nodes", 1))
    gpus = requested.get("gpus", 0) * requested.get("nodes", 1)
    assert job.get("TresPerJob") == (f"gres:gpu:{gpus}" if gpus else None)


@pytest.mark.parametrize("stage", STAGES)
def test_a_process_sees_the_gpus_of_its_job(stage: str, finished: Workspace) -> None:
    (log, *_) = sorted(finished.results.glob(f"{stage}/*/logs/*.log"))
    seen = re.search(r"GPUs: (\S+)", log.read_text())
    assert seen is not None
    assert (0 if seen[1] == "none" else len(seen[1].split(","))) == REQUESTED[stage].get("gpus", 0)


@pytest.mark.parametrize(("stage", "nodes"), [("autodecoder", 2), ("unet", 1)])
def test_two_processes_train_together(stage: str, nodes: int, finished: Workspace) -> None:
    assert f"2 processes on {nodes} node" in (finished.stage(stage) / f"logs/{stage}.log").read_text()


def test_states_come_from_squeue_without_a_database(finished: Workspace) -> None:
    assert {query.split()[0] for query in finished.queries()} == {"squeue"}


def test_the_report_links_the_logs_of_every_stage(finished: Workspace) -> None:
    links = re.findall(r'href="([^"#]+/logs/)"', (finished.results / "report.html").read_text())
    assert len(links) == len(STAGES)
    for link in links:
        assert list((finished.results / link).glob("*.log")), link


def test_the_same_command_again_submits_nothing(finished: Workspace) -> None:
    assert "Nothing to be done" in finished.run()
