"""The command by which `--profile slurm` queries states of jobs, with fake SLURM commands on PATH."""

import asyncio
import contextlib
import logging
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import snakemake_executor_plugin_slurm as executor

from z1g.jobs import slurm

NONE, DATABASE = "accounting_storage/none", "accounting_storage/slurmdbd"


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with SLURM's commands; the executor is restored at the end."""
    for name in ("which", "tail"):
        (tmp_path / name).symlink_to(Path("/usr/bin") / name)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(slurm.STATUS, raising=False)
    monkeypatch.setattr(executor, "is_query_tool_available", executor.is_query_tool_available)
    for name in ("scontrol", "sacct", "squeue"):
        command(tmp_path, name, "exit 0")
    return tmp_path


def command(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def configuration(storage: str) -> str:
    return f"echo 'AccountingStorageTRES    = cpu,mem'; echo 'AccountingStorageType    = {storage}'"


def test_sacct_if_the_database_answers(commands: Path) -> None:
    command(commands, "scontrol", configuration(DATABASE))
    assert slurm.status_command() == "sacct"
    assert executor.is_query_tool_available("sacct")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scontrol", "sacct"),
    [
        (configuration(NONE), "exit 0"),
        (configuration(DATABASE), "exit 1"),
        (configuration(DATABASE), "exec tail -f /dev/null"),
        ("exit 1", "exit 0"),
        ("exec tail -f /dev/null", "exit 0"),
    ],
)
def test_squeue_otherwise(scontrol: str, sacct: str, commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor must not see sacct, because it would use it when the controller does not answer."""
    monkeypatch.setattr(slurm, "ANSWER_S", 2.0)
    command(commands, "scontrol", scontrol)
    command(commands, "sacct", sacct)
    assert executor.is_query_tool_available("sacct")
    assert slurm.status_command() == "squeue"
    assert not executor.is_query_tool_available("sacct")
    assert executor.is_query_tool_available("squeue")


@pytest.mark.parametrize(("age", "database", "warned"), [(2, False, True), (300, False, False), (2, True, False)])
def test_a_cluster_that_forgets_too_soon(
    age: int, database: bool, warned: bool, commands: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command(commands, "scontrol", f"{configuration(DATABASE if database else NONE)}; echo 'MinJobAge   = {age} sec'")
    slurm.status_command()
    assert ("MinJobAge" in caplog.text) == warned


def test_squeue_without_slurm(commands: Path) -> None:
    for name in ("scontrol", "sacct", "squeue"):
        (commands / name).unlink()
    assert slurm.status_command() == "squeue"


@pytest.mark.parametrize("tool", ["squeue", "sacct"])
def test_the_environment_variable_takes_precedence(tool: str, commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(commands, "scontrol", configuration(DATABASE if tool == "squeue" else NONE))
    monkeypatch.setenv(slurm.STATUS, tool)
    assert slurm.status_command() == tool
    assert executor.is_query_tool_available("sacct") == (tool == "sacct")


class Queried(Exception):
    """Stops the executor where it would query SLURM."""


def queried_by(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """The command with which the executor's own loop queries states."""

    async def query(command: str, logger: logging.Logger) -> None:
        raise Queried(command)

    monkeypatch.setattr(executor, "query_job_status", query)
    self = SimpleNamespace(
        workflow=SimpleNamespace(executor_settings=SimpleNamespace(**settings)),
        logger=logging.getLogger("executor"),
        run_uuid="run",
        status_rate_limiter=contextlib.nullcontext(),
        get_status_command=lambda: settings["status_command"],
    )
    try:
        with pytest.raises(Queried) as stopped:
            asyncio.run(anext(executor.Executor.check_active_jobs(self, [SimpleNamespace(external_jobid="1")])))
    except Exception as error:
        plugin = "snakemake-executor-plugin-slurm"
        pytest.fail(
            f"{plugin} {version(plugin)} no longer queries states as it did ({type(error).__name__}: {error}). Look "
            "at its Executor.check_active_jobs and at _disable_sacct in z1g/jobs/slurm.py, which keeps it from sacct"
        )
    return str(stopped.value)


def test_the_executor_itself_stays_with_squeue(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own loop, while the controller is away. Unreplaced, it turns to sacct, or there is nothing to replace."""
    command(commands, "scontrol", "exit 1")
    settings = {"status_command": "squeue", "init_seconds_before_status_checks": 5, "status_attempts": 1}
    assert queried_by(settings, monkeypatch).startswith("sacct"), (
        "the executor now stays with squeue by itself: drop _disable_sacct from z1g/jobs/slurm.py and its bound "
        "from pyproject.toml"
    )
    assert slurm.status_command() == "squeue"
    assert queried_by(settings, monkeypatch).startswith("squeue"), (
        "the executor turns to sacct although _disable_sacct of z1g/jobs/slurm.py hides it: see what its "
        "check_active_jobs looks at now"
    )
