"""A Blender that hangs, dies or never starts, played by a script."""

import os
import sys
import time
from pathlib import Path

import pytest

from z1g.data.sources import Rejected
from z1g.errors import UserError
from z1g.meshes import blender as blender_process

FAKE = """#!{python}
import json, os, pathlib, signal, sys, time
job = json.loads(pathlib.Path(sys.argv[-1]).read_text())
pid = pathlib.Path(job["settings"]["pids"]); pid.write_text(pid.read_text() + f"{{os.getpid()}} ")
print("z1g", flush=True)
for item in job["objects"]:
    folder = pathlib.Path(job["output"]) / item["id"]
    folder.mkdir(parents=True, exist_ok=True)
    print("chatter about", item["id"], flush=True)
    marker = pathlib.Path(job["output"]) / (item["id"] + ".marker")
    if item["id"].startswith("hang"):
        time.sleep(60)
    if item["id"].startswith("die") or (item["id"].startswith("once") and not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if item["id"].startswith("quit"):
        sys.exit("out of memory")
    (folder / "result.json").write_text("{{}}")
    if item["id"].startswith("mute"):
        os.kill(os.getpid(), signal.SIGKILL)
    print("z1g", item["id"], flush=True)
"""


@pytest.fixture
def fake(tmp_path: Path):
    """Run ids through the fake; returns outcomes as 'ok' or a reason, and the processes that were started."""
    executable = tmp_path / "blender"
    executable.write_text(FAKE.format(python=sys.executable))
    executable.chmod(0o755)
    pids = tmp_path / "pids"
    pids.write_text("")

    def run(*ids: str, timeout_s: float = 30.0) -> tuple[list[tuple[str, str]], list[int]]:
        command = blender_process.find_blender(str(executable))
        items = [{"id": name} for name in ids]
        outcomes = []
        for outcome in blender_process.render(command, items, {"pids": str(pids)}, tmp_path, timeout_s):
            if isinstance(outcome, Rejected):
                outcomes.append((outcome.id, outcome.reason))
            else:
                assert (outcome / "result.json").is_file()
                outcomes.append((outcome.name, "ok"))
        return outcomes, [int(pid) for pid in pids.read_text().split()]

    return run


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_hanging_object_is_rejected_and_the_others_go_on(fake):
    start = time.monotonic()
    outcomes, pids = fake("a", "hang", "b", timeout_s=1.0)
    assert time.monotonic() - start < 10
    assert [name for name, _ in outcomes] == ["a", "hang", "b"]
    assert [reason == "ok" for _, reason in outcomes] == [True, False, True]
    assert "longer than 1 s" in outcomes[1][1]
    assert "data.blender.timeout_s" in outcomes[1][1]
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


def test_a_crash_costs_one_object_after_a_second_try(fake):
    outcomes, pids = fake("a", "die", "b", "once", "quit", "c")
    assert [name for name, _ in outcomes] == ["a", "die", "b", "once", "quit", "c"]
    reasons = dict(outcomes)
    assert {name for name, reason in outcomes if reason == "ok"} == {"a", "b", "once", "c"}
    assert "SIGKILL" in reasons["die"]
    assert "chatter about die" in reasons["die"]
    assert "exit code 1" in reasons["quit"]
    assert "out of memory" in reasons["quit"]
    assert len(pids) == 6  # two lost to each of die and quit, one to once, the last finishes


def test_a_result_on_disk_counts_though_blender_died_before_saying_so(fake):
    outcomes, pids = fake("mute", "a")
    assert outcomes == [("mute", "ok"), ("a", "ok")]
    assert len(pids) == 2


def test_closing_the_generator_ends_blender(fake, tmp_path):
    command = blender_process.find_blender(str(tmp_path / "blender"))
    settings = {"pids": str(tmp_path / "pids")}
    outcomes = blender_process.render(command, [{"id": "a"}, {"id": "hang"}], settings, tmp_path, 30.0)
    assert isinstance(next(outcomes), Path)
    outcomes.close()
    assert not any(alive(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_a_blender_that_does_not_start_is_an_error_and_no_quarantine(tmp_path):
    broken = tmp_path / "blender"
    broken.write_text("#!/bin/sh\necho libGL is missing\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(UserError, match="libGL is missing") as error:
        next(blender_process.render(blender_process.find_blender(str(broken)), [{"id": "a"}], {}, tmp_path, 30.0))
    assert "exit code 3" in str(error.value)
    assert "Z1G_BLENDER" in str(error.value)


def test_a_blender_that_never_gets_up_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(blender_process, "STARTUP_S", 0.3)
    slow = tmp_path / "blender"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(UserError, match="was not up after"):
        next(blender_process.render(blender_process.find_blender(str(slow)), [{"id": "a"}], {}, tmp_path, 30.0))
