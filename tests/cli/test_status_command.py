"""`z1g status` from the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.builders import fill, plan, stage_path
from support.die import run_and_die
from support.paths import ROOT
from support.status_tree import write_beat, write_output, write_record

from z1g.cli.main import main
from z1g.core.stages import STAGE_NAMES
from z1g.plan.plan import Plan


@pytest.fixture
def micro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    return plan(tmp_path)


def finish(planned: Plan) -> None:
    for name in STAGE_NAMES:
        for chunk in range(planned.ablations["micro"].stages[name].n_chunks):
            write_output(stage_path(planned, name), chunk)


def test_all_runs_in_the_folder(micro: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    write_beat(stage_path(micro, "unet"), "unet", progress={"task": "unet", "step": 1, "of": 6, "rate": 0.5})
    assert main(["status"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[:8]] == ["stage", *STAGE_NAMES]
    assert "1/6, 0.5/s" in printed
    assert "7 stages: 6 waiting, 1 running." in printed


def test_json(micro: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json", "--ablations", "micro"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"waiting": 7}
    assert main(["status", "--ablations", "micro", "--json", "status.json"]) == 0
    assert "7 stages: 7 waiting." in capsys.readouterr().out
    assert json.loads(Path("status.json").read_text())["counts"] == {"waiting": 7}


def test_a_page(micro: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--html", "page/status.html"]) == 0
    assert capsys.readouterr().out == ""
    assert [file.name for file in Path("page").iterdir()] == ["status.html"]
    assert "7 stages: 7 waiting" in Path("page/status.html").read_text()


def test_a_watched_set_that_is_done_ends(micro: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    finish(micro)
    assert main(["status", "--watch", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["finished"]


@pytest.mark.slow
def test_a_watched_page_follows(micro: Plan, tmp_path: Path) -> None:
    """From another process, which ends with the set."""
    page = tmp_path / "status.html"
    command = [sys.executable, "-m", "z1g", "status", "--watch", "1", "--html", str(page)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as child:
        try:
            for step in (2, 5):
                write_beat(stage_path(micro, "unet"), "unet", progress={"task": "unet", "step": step, "of": 6})
                wait(lambda page=page, step=step: page.exists() and f"{step}/6" in page.read_text())
            finish(micro)
            (stage_path(micro, "unet") / "progress/unet.json").unlink()
            output = child.communicate(timeout=60)[0]
        finally:
            child.kill()
    assert (child.returncode, output) == (0, b"")
    assert "7 stages: 7 done" in page.read_text()


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_training(micro: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    """A real one, which SIGKILL ends during step 5, after the checkpoint of step 4."""
    fill(micro)
    folder = stage_path(micro, "autodecoder")
    assert run_and_die("SIGKILL", "step-5", "autodecoder", folder).code == -signal.SIGKILL
    assert main(["status", "--json"]) == 0
    stages = {stage["stage"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}
    (job,) = stages["autodecoder"]["jobs"]
    assert job["state"] == "failed"
    assert job["detail"].startswith(f"killed on {socket.gethostname()} after ")
    assert "it continues from step 4" in job["detail"]


def test_what_was_never_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("workflow", "configs", "ablations"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    assert main(["status", "--scale", "scratch", "--ablations", "encoder_mix", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["counts"] == {"waiting": 7}
    assert about["gpu_hours_left"] == 0, "scale=scratch asks for no GPU"
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--results", "nowhere"], "nowhere: no ablation was planned here"),
        (["--ablations", "mikro"], 'did you mean "micro"'),
        (["--html", "/dev/null/a.html"], "/dev/null"),
        (["--scale", "tinny"], 'did you mean "tiny"'),
        (["--objects", "meshes"], "--objects is of use only with --scale"),
    ],
)
def test_mistakes(words: list[str], message: str, micro: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    Path("configs").symlink_to(ROOT / "configs")
    Path("ablations").symlink_to(ROOT / "ablations")
    assert main(["status", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_records_that_were_damaged(micro: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(stage_path(micro, "unet"), "unet", {"seconds": "?", "gpus": 3})
    (stage_path(micro, "codes") / "jobs").mkdir()
    (stage_path(micro, "codes") / "jobs/codes.json").write_text('{"attempts": [3]}')
    (micro.results / "budget.json").write_text("{")
    (micro.results / "ablations/micro/config.json").write_text("{")
    assert main(["status"]) == 0
    assert "7 stages: 7 waiting." in capsys.readouterr().out
    (micro.results / "ablations/other").mkdir()
    (micro.results / "ablations/other/plan.json").write_text("[]")
    assert main(["status"]) == 2
    assert "other/plan.json cannot be read" in capsys.readouterr().err
