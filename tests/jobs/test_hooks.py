"""Commands at the end of a run: what they get, and that they cannot spoil it."""

import json
from pathlib import Path

import pytest
from support.builders import plan

from z1g.jobs import hooks
from z1g.jobs.hooks import tell


@pytest.mark.slow
def test_the_command_gets_the_summary(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    planned = plan(tmp_path)
    command = (
        f"cat > '{tmp_path}/heard'; cp $Z1G_SUMMARY '{tmp_path}/summary.json'; echo $Z1G_SUMMARY > '{tmp_path}/name'"
    )
    tell({"onsuccess": command, "onerror": "exit 1"}, "success", planned.results, planned.ablations)
    first, _, *rest = (tmp_path / "heard").read_text().splitlines()
    assert first == f"success: {planned.results}"
    assert rest[0].split()[:3] == ["stage", "id", "state"]
    assert any("7 stages: 7 waiting." in line for line in rest)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [stage["state"] for stage in summary["stages"]] == ["waiting"] * 7
    assert not Path((tmp_path / "name").read_text().strip()).exists(), "it is there for the command only"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("exit 3", "exit code 3"),
        ("no-such-command", "exit code 127"),
        ("true; cat > /nowhere/x", "exit code"),
        ("exec tail -f /dev/null", "timed out"),
        ("a\0b", "null"),
    ],
)
def test_a_failing_command_is_said(
    command: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hooks, "_summary", lambda results, runs, document: "all is well\n" * 100_000)
    monkeypatch.setattr(hooks, "LIMIT_S", 0.5)
    tell({"onerror": command}, "error", tmp_path, ["a"])
    said = capfd.readouterr().err
    assert f"z1g: the command of onerror= failed: {command}" in said
    assert problem in said


def test_off_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks.subprocess, "run", None)
    monkeypatch.delenv("Z1G_ONSUCCESS", raising=False)
    tell({"onerror": "exit 1"}, "success", tmp_path, ["a"])


def test_a_command_for_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_summary", lambda results, runs, document: "all is well\n")
    monkeypatch.setenv("Z1G_ONERROR", f"cat > '{tmp_path}/heard'")
    tell({}, "error", Path("results"), ["a"])
    assert (tmp_path / "heard").read_text() == "error: results\n\nall is well\n"
    tell({"onerror": f"cat > '{tmp_path}/other'"}, "error", Path("elsewhere"), ["a"])
    assert (tmp_path / "heard").read_text().startswith("error: results"), "the option comes first"


@pytest.mark.slow
def test_a_summary_that_fails_is_not_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "summary.json"
    assert "no ablation was planned here" in hooks._summary(tmp_path, ["a"], document)
    assert "no ablation was planned here" in json.loads(document.read_text())["error"]
