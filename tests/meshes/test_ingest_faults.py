"""A Blender that hangs, crashes, grows or never starts, simulated by a script."""

import os
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from z1g.core.errors import UserError
from z1g.data.shards import Rejected
from z1g.meshes import process as blender_process
from z1g.meshes.executable import find_blender
from z1g.meshes.files import Unusable
from z1g.meshes.pool import DRAWN_AHEAD, PREPARED_AHEAD, Task, draw
from z1g.meshes.renderers import Blender

FAKE = """#!{python}
import json, os, pathlib, signal, sys, time
settings = json.loads(sys.stdin.readline())
with open(settings["pids"], "a") as pids:
    pids.write(f"{{os.getpid()}} ")
if "unable" in settings:
    print("z1g unable", settings["unable"], flush=True)
    sys.exit()
print("z1g up", flush=True)
for line in sys.stdin:
    item = json.loads(line)
    folder = pathlib.Path(item["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    print("chatter about", item["id"], flush=True)
    marker = pathlib.Path(settings["pids"] + item["id"])
    if item["id"].startswith("hang"):
        time.sleep(60)
    if item["id"].startswith("slow"):
        time.sleep(0.5)
    if item["id"].startswith("die") or (item["id"].startswith("once") and not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    if item["id"].startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if item["id"].startswith("quit"):
        sys.exit("no more paper")
    if item["id"].startswith("monster"):
        sys.exit("Malloc returns null: len=123456 in CustomData")
    resident = 900 if item["id"].startswith("grow") else 100
    result = {{"exists": os.path.exists(item["path"]), "resident_mb": resident, "pid": os.getpid()}}
    (folder / "result.json").write_text(json.dumps(result))
    if item["id"].startswith("mute"):
        os.kill(os.getpid(), signal.SIGKILL)
    print("z1g done", item["id"], flush=True)
"""


def prepare(name: str, folder: Path) -> Path:
    if name.startswith("broken"):
        raise Unusable("not a mesh at all")
    folder.mkdir(parents=True)
    (folder / "mesh.obj").touch()
    return folder / "mesh.obj"


class Fake:
    """A pool with the fake executable that records the processes started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.scratch, self.pids = folder, folder / "scratch", folder / "pids"
        self.scratch.mkdir()
        executable = folder / "blender"
        executable.write_text(FAKE.format(python=sys.executable))
        executable.chmod(0o755)
        self.command = find_blender(str(executable))

    def draw(self, tasks, processes: int = 1, settings=None, **options):
        given = {"pids": str(self.pids), "memory_mb": 1000, "threads": 1, **(settings or {})}
        return draw(self.command, given, tasks, self.scratch, Blender(**options), processes)

    def outcomes(self, *ids: str, **kwargs) -> list[tuple[str, str]]:
        """Every id with 'ok' or the reason of its rejection."""
        drawn = list(self.draw([Task(name, partial(prepare, name), []) for name in ids], **kwargs))
        for outcome in drawn:
            assert isinstance(outcome, Rejected) or outcome.result["exists"]
        assert not list((self.scratch / "files").glob("*"))  # unpacked files are deleted
        assert not any(alive(pid) for pid in self.started())
        return [(o.id, o.reason) if isinstance(o, Rejected) else (o.folder.name, "ok") for o in drawn]

    def started(self) -> list[int]:
        return [int(pid) for pid in self.pids.read_text().split()] if self.pids.exists() else []


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_hanging_object_is_rejected_and_the_others_continue(fake):
    start = time.monotonic()
    outcomes = fake.outcomes("a", "hang", "b", timeout_s=1.0)
    assert time.monotonic() - start < 20
    assert [(name, reason == "ok") for name, reason in outcomes] == [("a", True), ("hang", False), ("b", True)]
    assert "longer than 1 s" in outcomes[1][1]
    assert "data.renderer.timeout_s" in outcomes[1][1]
    assert len(fake.started()) == 2


@pytest.mark.parametrize("processes", [1, 3])
def test_a_crash_costs_one_object_after_a_second_try(fake, processes):
    names = ["a", "die", "b", "broken", "once", "quit", "monster", "killed", "c"]
    outcomes = fake.outcomes(*names, processes=processes)
    assert [name for name, _ in outcomes] == names
    reasons = dict(outcomes)
    assert {name for name, reason in outcomes if reason == "ok"} == {"a", "b", "once", "c"}
    assert reasons["broken"] == "not a mesh at all"
    assert "SIGSEGV" in reasons["die"]
    assert "chatter about die" in reasons["die"]
    assert "SIGKILL, probably because memory ran out" in reasons["killed"]
    assert "exit code 1" in reasons["quit"]
    assert "no more paper" in reasons["quit"]
    assert "out of memory" in reasons["monster"]
    assert "1000 MiB (data.renderer.memory_mb)" in reasons["monster"]
    if processes == 1:
        assert len(fake.started()) == 10  # two each for die, quit, monster and killed, one for once, and the last one


def test_a_result_on_disk_counts_if_blender_crashed_before_reporting_it(fake):
    assert fake.outcomes("mute", "a") == [("mute", "ok"), ("a", "ok")]
    assert len(fake.started()) == 2


def test_a_process_is_replaced_after_so_many_objects_or_so_much_memory(fake):
    names = ["a", "b", "c", "grow", "d"]
    assert fake.outcomes(*names, restart_after=2) == [(name, "ok") for name in names]
    assert len(fake.started()) == 3  # after b, after grow
    before = len(fake.started())
    assert fake.outcomes("grow", "a", restart_above_mb=950) == [("grow", "ok"), ("a", "ok")]
    assert len(fake.started()) == before + 1


def test_several_processes_share_one_queue_and_keep_the_order(fake):
    names = ["slow", *"abcdefgh", "slow2", "z"]
    drawn = list(fake.draw([Task(name, partial(prepare, name), []) for name in names], processes=2))
    assert [outcome.folder.name for outcome in drawn] == names
    pids = [outcome.result["pid"] for outcome in drawn]
    assert len(set(pids)) == 2
    assert pids[1:9] == [pids[1]] * 8  # the other process renders the rest meanwhile


def test_files_are_prepared_only_shortly_before_their_turn(fake):
    prepared = []

    def note(name: str, folder: Path) -> Path:
        prepared.append(name)
        return prepare(name, folder)

    names = [f"n{i}" for i in range(100)]
    outcomes = fake.draw((Task(name, partial(note, name), []) for name in names), processes=1)
    next(outcomes)
    drawn, ready = 1 + DRAWN_AHEAD + PREPARED_AHEAD, 1 + PREPARED_AHEAD
    assert len(prepared) <= drawn + ready
    assert len(list((fake.scratch / "files").iterdir())) <= ready
    outcomes.close()
    assert len(prepared) < 50


def test_closing_the_generator_ends_every_blender(fake):
    outcomes = fake.draw([Task(name, partial(prepare, name), []) for name in ("a", "hang", "hang2", "b")], processes=2)
    assert next(outcomes).folder.name == "a"
    outcomes.close()
    assert len(fake.started()) <= 2
    assert not any(alive(pid) for pid in fake.started())


def test_unsupported_settings_are_an_error_and_not_a_quarantine(fake):
    with pytest.raises(UserError, match="Cycles finds no GPU"):
        list(fake.draw([Task("a", partial(prepare, "a"), [])], settings={"unable": "Cycles finds no GPU"}))


def start(executable: Path) -> None:
    settings = {"memory_mb": 1000, "threads": 1}
    tasks = [Task("a", partial(prepare, "a"), [])]
    next(draw(find_blender(str(executable)), settings, tasks, executable.parent, Blender(), 1))


def test_a_blender_that_does_not_start_is_an_error_and_not_a_quarantine(tmp_path):
    broken = tmp_path / "blender"
    broken.write_text("#!/bin/sh\necho libGL is missing\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(UserError, match="libGL is missing") as error:
        start(broken)
    assert "exit code 3" in str(error.value)
    assert "Z1G_BLENDER" in str(error.value)


def test_a_blender_that_never_becomes_ready_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(blender_process, "STARTUP_S", 0.3)
    slow = tmp_path / "blender"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(UserError, match="did not start within"):
        start(slow)
