"""Ctrl-C with `--profile slurm`: real Snakemake, and a queue that is a folder with a file for each job."""

import os
from pathlib import Path

import pytest
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from support.forked_snakemake import snakemake
from support.paths import ROOT

SNAKEFILE = """
import os
from pathlib import Path

if workflow.is_main_process:
    Path("pid").write_text(str(os.getpid()))


rule all:
    input: expand("{i}.txt", i=range(4)),


rule one:
    output: "{i}.txt",
    shell: "touch {output}"
"""
SBATCH = """
name=
for word; do [ "$before" = --job-name ] && name=$word; before=$word; done
echo "$name" >queue/$$
echo $$
"""
SCANCEL = """
[ -n "$REFUSES" ] && { echo "Unable to contact slurm controller" >&2; exit 1; }
for word; do
    case $word in
    --name=*) grep -lx -e "${word#--name=}" queue/* | xargs -r rm ;;
    --*) ;;
    *) rm -f "queue/$word" ;;
    esac
done
"""
SQUEUE = 'for job in queue/*; do echo "${job#queue/}|PENDING"; done'
INTERRUPT = """
if mkdir interrupted 2>/dev/null; then
    kill -INT $(cat pid)
    until grep -q "Terminating processes" "$LOG"; do tail -c 1 "$LOG" >/dev/null; done
fi
"""
"""Ctrl-C while a command runs: it goes on when Snakemake has noticed."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workflow of four jobs, and SLURM's commands in `bin`. The executor is restored at the end."""
    monkeypatch.setattr(RemoteExecutor, "next_seconds_between_status_checks", property(lambda self: 0.05, _nothing))
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "slurm").symlink_to(ROOT / "workflow/profiles/slurm")
    for name in ("bin", "queue"):
        (tmp_path / name).mkdir()
    (tmp_path / "queue/1").write_text("z1g_of_another_run\n")
    for name in ("scontrol", "sacct", "sacctmgr", "sinfo"):
        command(tmp_path, name, "exit 0")
    for name, script in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL)):
        command(tmp_path, name, script)
    return tmp_path


def _nothing(self: RemoteExecutor, seconds: float) -> None:
    """The executor's own intervals, which grow, are not used."""


def command(folder: Path, name: str, script: str) -> None:
    file = folder / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def interrupted(folder: Path, **variables: str) -> tuple[list[str], str]:
    """Names of the runs whose jobs are left in the queue, and what Snakemake said."""
    log = folder / "log"
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "LOG": str(log)} | variables
    done = snakemake(["--profile", "slurm"], folder, environment, stderr=log)
    assert done.returncode != 0
    return [file.read_text().strip() for file in (folder / "queue").iterdir()], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "script"), [("squeue", SQUEUE), ("sbatch", SBATCH)], ids=["queried", "submitted"])
def test_no_job_is_left(name: str, script: str, folder: Path) -> None:
    """The executor forgets its jobs while it queries their states, and submits those that wait for their turn."""
    command(folder, name, INTERRUPT + script)
    assert interrupted(folder)[0] == ["z1g_of_another_run"]


@pytest.mark.slow
def test_jobs_that_cannot_be_canceled_are_said(folder: Path) -> None:
    command(folder, "squeue", INTERRUPT + SQUEUE)
    left, said = interrupted(folder, REFUSES="1")
    (run,) = {name for name in left if name != "z1g_of_another_run"}
    assert "jobs may be left in the queue (Unable to contact slurm controller)" in said
    assert f"cancel them by: scancel --name={run}" in said
