"""`snakemake --profile slurm ablation_all` on a real SLURM: what its jobs ask for, and where their logs are."""

import re

import pytest
from cluster import Cluster
from workspace import ASKED, Workspace

STAGES = tuple(ASKED)


@pytest.fixture(scope="module")
def jobs(cluster: Cluster, finished: Workspace) -> dict[str, dict[str, str]]:
    """SLURM's record of one job of each rule."""
    said = (finished.folder / "snakemake.out").read_text()
    logs = dict(re.findall(r"SLURM jobid (\d+) \(log: \S*?/rule_(\w+)/", said))
    return {rule: cluster.job(job) for job, rule in logs.items()}


def test_everything_runs_and_is_reported(finished: Workspace, jobs: dict[str, dict[str, str]]) -> None:
    assert (finished.results / "report.html").stat().st_size > 1000
    assert set(jobs) == set(STAGES), "collecting and reporting need no job"
    assert {record["JobState"] for record in jobs.values()} == {"COMPLETED"}
    assert {record["Restarts"] for record in jobs.values()} == {"0"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_asks_for_what_the_configuration_says(stage: str, jobs: dict[str, dict[str, str]]) -> None:
    asked, job = ASKED[stage], jobs[stage]
    assert job["Partition"] == asked.get("partition", "day")
    assert job["Account"] == asked.get("account", "(null)")
    assert job["TimeLimit"] == f"00:{asked['minutes']}:00"
    assert job["MinMemoryNode"] == f"{asked['memory_mb']}M"
    assert job["CPUs/Task"] == str(asked["threads"])
    assert job["NumNodes"] == str(asked.get("nodes", 1))
    gpus = asked.get("gpus", 0) * asked.get("nodes", 1)
    assert job.get("TresPerJob") == (f"gres:gpu:{gpus}" if gpus else None)


@pytest.mark.parametrize("stage", STAGES)
def test_a_process_sees_the_gpus_of_its_job(stage: str, finished: Workspace) -> None:
    (log, *_) = sorted(finished.results.glob(f"{stage}/*/logs/*.log"))
    seen = re.search(r"GPUs: (\S+)", log.read_text())
    assert seen is not None
    assert (0 if seen[1] == "none" else len(seen[1].split(","))) == ASKED[stage].get("gpus", 0)


@pytest.mark.parametrize(("stage", "nodes"), [("autodecoder", 2), ("unet", 1)])
def test_two_processes_train_together(stage: str, nodes: int, finished: Workspace) -> None:
    assert f"2 processes on {nodes} node" in (finished.stage(stage) / f"logs/{stage}.log").read_text()


def test_states_come_from_squeue_where_there_is_no_database(finished: Workspace) -> None:
    assert {look.split()[0] for look in finished.looks()} == {"squeue"}


def test_the_report_links_the_logs_of_every_stage(finished: Workspace) -> None:
    links = re.findall(r'href="([^"#]+/logs/)"', (finished.results / "report.html").read_text())
    assert len(links) == len(STAGES)
    for link in links:
        assert list((finished.results / link).glob("*.log")), link


def test_the_same_command_again_submits_nothing(finished: Workspace) -> None:
    assert "Nothing to be done" in finished.run()
