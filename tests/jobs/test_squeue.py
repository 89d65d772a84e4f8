"""SLURM's queue, from a stand-in for `squeue` on PATH."""

import getpass
from pathlib import Path

import pytest

from z1g.jobs import squeue
from z1g.jobs.squeue import SlurmJob, slurm_queue


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "squeue").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_jobs_are_known_by_their_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (
        "41|RUNNING|None|rule_fit_wildcards_3b5e421c56_00007",
        "42|PENDING|Resources|rule_unet_wildcards_c294bcb5c7",
        "43|PENDING|(Priority|urgent)|rule_fit_wildcards_3b5e421c56_00008",
        "44|PENDING|Dependency|rule_fit_wildcards_3b5e421c56_00007",
        "45|RUNNING|None|somebody's own job",
        "46|COMPLETING|None|rule_codes_wildcards_4f96b6b51b",
        "no such line",
    )
    printed = "\n".join(lines)
    stand_in(tmp_path, monkeypatch, f"echo \"$@\" > '{tmp_path}/asked'\ncat <<'END'\n{printed}\nEND")
    assert slurm_queue() == {
        ("fit", "3b5e421c56", 7): SlurmJob("41", "RUNNING", "None"),
        ("unet", "c294bcb5c7", None): SlurmJob("42", "PENDING", "Resources"),
        ("codes", "4f96b6b51b", None): SlurmJob("46", "COMPLETING", "None"),
    } | {("fit", "3b5e421c56", 8): SlurmJob("43", "PENDING", "(Priority")}
    assert f"--user {getpass.getuser()}" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize("script", ["exit 1", "exec tail -f /dev/null"])
def test_a_slurm_that_does_not_answer(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squeue, "ANSWER_S", 0.2)
    stand_in(tmp_path, monkeypatch, script)
    assert slurm_queue() is None


def test_no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm_queue() is None
