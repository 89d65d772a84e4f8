"""Real Snakemake, watched from another process, killed, told of its end, and held to a budget. Only the work is made up."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from support.paths import ROOT, TESTS

from z1g.config.resolve import merge
from z1g.jobs.budget import SPENT, read_budget
from z1g.plan.status import Evidence, StageStatus, Status, nodes_on_disk, status
from z1g.report.status import sentences

pytestmark = pytest.mark.slow
LIMIT_S = 300.0


class Workspace:
    """A checkout with two chunks of objects, whose fits ask for a GPU, of which there is one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder, folder / "results"
        for name in ("workflow", "ablations", "configs"):
            shutil.copytree(ROOT / name, folder / name)
        (folder / "local").symlink_to("workflow/profiles/local")
        micro = yaml.safe_load((ROOT / "tests/support/micro.yaml").read_text())
        paths = [f"workflow/objects/{name}" for name in ("crate", "bread", "basketball", "chicken")]
        changes = {"data": {"paths": paths, "chunk_size": 2}, "resources": {"fit": {"gpus": 1}}}
        (folder / "micro.yaml").write_text(yaml.safe_dump(merge(micro, changes)))
        verb = f'Z1G = f"{{shlex.quote(sys.executable)}} {TESTS}/support/pausing_stages.py"'
        (folder / "Snakefile").write_text(re.sub(r"(?m)^Z1G = .*$", verb, (ROOT / "Snakefile").read_text()))

    @contextlib.contextmanager
    def started(self, *words: str, config: tuple[str, ...] = ()) -> Iterator["subprocess.Popen[str]"]:
        """Snakemake in a session of its own, up to the fits; all of it is killed at the end of the block."""
        command = [sys.executable, "-m", "snakemake", "--profile", "local", "--cores", "2", "--until", "fit", *words]
        command += ["--config", "scale=micro.yaml", "ablations=encoder_mix", *config]
        own = {"Z1G_GPUS": "5", "Z1G_LEASES": str(self.folder / "leases"), "PYTHONPATH": f"{ROOT}:{TESTS}"}
        environment = {name: value for name, value in os.environ.items() if name != "SLURM_JOB_ID"} | own
        with (self.folder / "output").open("a") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=output, stderr=output, text=True, start_new_session=True
            )
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def run(self, *words: str, config: tuple[str, ...] = ()) -> int:
        """Run Snakemake to its end; returns its exit code."""
        with self.started(*words, config=config) as process:
            return process.wait(timeout=LIMIT_S)

    def output(self) -> str:
        return (self.folder / "output").read_text()

    def look(self) -> Status:
        nodes = nodes_on_disk(self.results)
        return status(self.results, nodes, Evidence.gather(self.folder, ask=False))

    def stage(self, name: str) -> StageStatus:
        return next(stage for stage in self.look().stages if stage.node.stage == name)

    def wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end, self.output()[-3000:]
            time.sleep(0.1)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_a_run_is_watched_killed_and_told_of(workspace: Workspace) -> None:
    hold = workspace.folder / "hold-ingest"
    hold.touch()
    with workspace.started() as process:
        workspace.wait(lambda: (workspace.results / "ablations/encoder_mix/plan.json").exists())
        workspace.wait(lambda: [job.beat and job.beat.progress.step for job in workspace.stage("ingest").jobs] == [4, 4])
        found = workspace.look()
        assert {stage.node.stage: stage.state for stage in found.stages}["ingest"] == "running"
        assert {stage.state for stage in found.stages[1:]} == {"waiting"}
        assert f"process {process.pid}" in found.snakemake
        assert [dict(job.beat.progress.figures) for job in found.stages[0].jobs if job.beat] == [{"loss": 0.25}] * 2
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    ingest = workspace.stage("ingest")
    assert ingest.state == "failed"
    for job in ingest.jobs:
        assert re.fullmatch(r"killed on \S+ after \d+ s, at 4 of 10 \(ingest\); it starts again", job.detail)
    assert "its lock is there" in workspace.look().snakemake
    assert workspace.run("--unlock") == 0
    assert "Snakemake does not run." in sentences(workspace.look())

    hold.unlink()
    heard = workspace.folder / "heard"
    assert workspace.run(config=(f"onsuccess=cat > {heard}; exit 5",)) == 0, workspace.output()[-3000:]
    assert workspace.stage("ingest").counts == workspace.stage("fit").counts == {"done": 2}
    assert heard.read_text().startswith("success: results\n")
    assert "7 stages: 5 waiting, 2 done." in heard.read_text()
    assert "the command of onsuccess= failed" in workspace.output(), "and the run has succeeded all the same"
    assert not list(workspace.results.rglob("*.tmp"))
    assert not list(workspace.results.glob("*/*/progress/*"))


def test_no_fit_starts_once_the_budget_is_used(workspace: Workspace) -> None:
    """The first fit takes more than the budget's 4 ms; what needs no GPU goes on."""
    heard = workspace.folder / "heard"
    assert workspace.run(config=("budget=1e-6", f"onerror=cat > {heard}")) == 1
    assert SPENT in workspace.output()
    assert workspace.stage("ingest").state == "done"
    assert sorted(job.state for job in workspace.stage("fit").jobs) in (["done", "stopped"], ["done", "waiting"])
    assert heard.read_text().startswith("error: results\n")
    assert "Budget: 1e-06 GPU hours." in heard.read_text()
    used = read_budget(workspace.results)
    assert used is not None
    assert used.used(workspace.results) > 1e-6

    assert workspace.run() == 0, workspace.output()[-3000:]
    assert workspace.stage("fit").counts == {"done": 2}
    assert read_budget(workspace.results) is None
