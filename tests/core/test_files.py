"""Atomic writing, locks that name their holder, and progress in logs."""

import errno
import logging
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from support.paths import ROOT

from z1g.core import files, progress
from z1g.core.errors import UserError
from z1g.core.files import (
    atomic_file,
    atomic_folder,
    read_json,
    read_jsonl,
    remove_unfinished,
    write_json,
    write_jsonl,
    write_text,
)
from z1g.core.locks import exclusive, exclusive_folder, waiting
from z1g.core.progress import Meter, track


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/file.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "half"
    assert names(path.parent) == ["file.txt"]


def test_an_error_names_the_file_and_not_its_temporary_name(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        write_text(tmp_path / "taken", "text")
    assert error.value.filename == str(tmp_path / "taken")
    with pytest.raises(FileNotFoundError) as missing, atomic_folder(tmp_path / "model") as temporary:
        (temporary / "none/a.json").write_text("text")
    assert missing.value.filename == str(tmp_path / "model/none/a.json")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    """Neither by a temporary name, nor not at all, as the system does where a file is open already."""

    def fill(file: Path) -> None:
        file.symlink_to("/dev/full")
        file.write_bytes(b"x")

    with pytest.raises(OSError, match="No space left on device") as caught, atomic_file(tmp_path / "a.ply") as file:
        fill(file)
    assert caught.value.filename == str(tmp_path / "a.ply")
    with pytest.raises(OSError, match="No space left on device") as caught, atomic_folder(tmp_path / "b") as folder:
        fill(folder / "c")
    assert caught.value.filename == str(tmp_path / "b")
    (tmp_path / "lock").symlink_to("/dev/full")
    for lock in (exclusive, waiting):
        with pytest.raises(OSError, match=r"No space left|Invalid argument") as caught, lock(tmp_path / "lock"):
            pass
        assert caught.value.filename == str(tmp_path / "lock")


@pytest.mark.parametrize("place", [atomic_file, atomic_folder])
def test_a_file_without_room_names_itself_though_the_disk_has_some(tmp_path: Path, place: Any) -> None:
    """safetensors finds out before it writes: `z1g pack` ended in its traceback on a disk with gigabytes left."""
    for number, words in ((errno.ENOSPC, "No space left on device"), (errno.EDQUOT, "Disk quota exceeded")):
        error = SafetensorError(f"Error while serializing: I/O error: {words} (os error {number})")
        with pytest.raises(OSError, match=words) as caught, place(tmp_path / "model"):
            raise error
        assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / "model"))
    with pytest.raises(SafetensorError, match="os error 2"), place(tmp_path / "model"):
        raise SafetensorError("I/O error: No such file or directory (os error 2)")
    assert names(tmp_path) == []


@pytest.mark.parametrize("hidden", [".z1g.unfinished", ".z1g.unfinished/a.ply", ".z1g.lock"])
def test_an_error_in_a_folder_names_what_becomes_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    """A full disk: found when the lock is signed, the folder of unfinished files is made, or one of them is written."""
    out, mkdir = tmp_path / "out", Path.mkdir

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out / hidden))

    def write() -> None:
        with exclusive_folder(out) as unfinished:
            assert unfinished == out / ".z1g.unfinished"
            full()

    if hidden == ".z1g.lock":
        monkeypatch.setattr("z1g.core.locks._sign", full)
    elif hidden == ".z1g.unfinished":
        monkeypatch.setattr(Path, "mkdir", lambda path, **how: full() if path.name == hidden else mkdir(path, **how))
    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert caught.value.filename == str(out / "a.ply" if hidden.endswith("ply") else out)


def test_an_open_reader_keeps_reading_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with path.open() as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_and_no_temporary_name(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail_halfway() -> None:
        with atomic_file(path) as temporary:
            temporary.write_text("new")
            raise failure

    with pytest.raises(failure):
        fail_halfway()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_value_that_is_not_json_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"b": 1, "a": [2]})
    assert list(read_json(path)) == ["b", "a"]
    for value in (float("nan"), {1, 2}):
        with pytest.raises((ValueError, TypeError)):
            write_json(path, value)
    assert read_json(path) == {"b": 1, "a": [2]}
    assert names(tmp_path) == ["file.json"]


def test_json_lines_round_trip(tmp_path: Path) -> None:
    rows = [{"id": "ü", "value": 1.5}, {"id": "line\nbreak \u2028", "value": None}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows
    write_jsonl(tmp_path / "rows.jsonl", [])
    assert read_jsonl(tmp_path / "rows.jsonl") == []


def test_a_folder_that_cannot_be_cleaned_up_says_why_it_was_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that has become read-only, removal fails even of what is not there."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "a hidden name")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ValueError, match="the cause"), atomic_folder(tmp_path / "model"):
        raise ValueError("the cause")


def test_lines_of_a_table_are_objects(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n[1]\n')
    with pytest.raises(ValueError, match="line 2 is not a JSON object"):
        read_jsonl(tmp_path / "rows.jsonl")


def test_a_body_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "file.txt"):
        pass
    assert names(tmp_path) == []


def test_a_folder_replaces_the_older_one_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for content in ("old", "new"):
        with atomic_folder(path) as temporary:
            (temporary / "deep").mkdir()
            (temporary / "deep" / content).write_text(content)
    assert names(path / "deep") == ["new"]
    assert names(tmp_path) == ["model"]


def test_a_link_to_a_folder_is_replaced_and_a_file_is_kept(tmp_path: Path) -> None:
    """Neither leaves a hidden folder or link behind, and nothing that was there for others is lost."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/old").touch()
    for target in ("kept", "nowhere"):
        (tmp_path / "model").symlink_to(target)
        with atomic_folder(tmp_path / "model") as temporary:
            (temporary / "new").touch()
        assert names(tmp_path) == ["kept", "model"]
        assert (names(tmp_path / "model"), names(tmp_path / "kept")) == (["new"], ["old"])
        (tmp_path / "model/new").unlink()
        (tmp_path / "model").rmdir()
    (tmp_path / "model").write_text("a file")
    with pytest.raises(NotADirectoryError, match=r"model'$"), atomic_folder(tmp_path / "model"):
        pass
    assert (tmp_path / "model").read_text() == "a file"
    (tmp_path / ".model.0123abcd.tmp").symlink_to("kept")
    remove_unfinished(tmp_path, "model")
    assert names(tmp_path) == ["kept", "model"]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("old")

    def fail_halfway() -> None:
        with atomic_folder(path) as temporary:
            (temporary / "b").write_text("new")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail_halfway()
    assert names(path) == ["a"]
    assert names(tmp_path) == ["model"]


def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    """Nor is a device: /dev/null would become a file, for all processes."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        write_text(tmp_path / "pipe", "text")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert names(tmp_path) == ["pipe"]


def test_an_older_folder_is_away_before_it_is_taken_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it removes the older folder must not leave half of it."""
    with atomic_folder(tmp_path / "model") as temporary:
        (temporary / "old").touch()
    removed: list[str] = []
    monkeypatch.setattr(files.shutil, "rmtree", lambda path, **_: removed.append(Path(path).name))
    with atomic_folder(tmp_path / "model") as temporary:
        (temporary / "new").touch()
    assert names(tmp_path / "model") == ["new"]
    assert "model" not in removed


def test_what_killed_processes_were_writing_is_removed(tmp_path: Path) -> None:
    ours = [".chunk-00000.tar.0123abcd.tmp", "jobs/.chunk-00000.json.89abcdef.tmp", ".chunk-00000.ffffffff.tmp/a"]
    others = [".chunk-00001.tar.0123abcd.tmp", ".chunk-000000.tar.0123abcd.tmp", "chunk-00000.tmp", ".x.tmp", "a.tar"]
    for name in [*ours, *others, ".stage.json.0123abcd.tmp"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_unfinished(tmp_path, "chunk-00000.")
    assert names(tmp_path) == sorted([*others, ".stage.json.0123abcd.tmp", "jobs"])
    assert names(tmp_path / "jobs") == []
    remove_unfinished(tmp_path, but=("stage.json",))
    assert names(tmp_path) == sorted([".stage.json.0123abcd.tmp", ".x.tmp", "a.tar", "chunk-00000.tmp", "jobs"])
    # Another process may be writing the record now, but not what was begun two hours ago.
    os.utime(tmp_path / ".stage.json.0123abcd.tmp", (time.time() - 7200,) * 2)
    remove_unfinished(tmp_path, "chunk-00000.", but=("stage.json",))
    assert names(tmp_path) == sorted([".x.tmp", "a.tar", "chunk-00000.tmp", "jobs"])


def test_documents_and_lines_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse files of a terabyte are in tests/adversarial."""
    write_jsonl(tmp_path / "a.jsonl", [{"a": 1}, {"a": 2}])
    monkeypatch.setattr(files, "LONGEST_LINE", 9)
    assert read_jsonl(tmp_path / "a.jsonl") == [{"a": 1}, {"a": 2}]
    monkeypatch.setattr(files, "LONGEST_LINE", 8)
    with pytest.raises(OSError, match="a line is longer than 8"):
        read_jsonl(tmp_path / "a.jsonl")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(tmp_path / "deep.json")


def test_a_lock_refuses_a_second_process_and_names_the_first(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    lock = tmp_path / "stage/lock"
    code = (
        "import sys; from pathlib import Path; from z1g.core.locks import exclusive\n"
        "with exclusive(Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    root = ROOT
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError) as caught, exclusive(lock):
            pytest.fail("two holders")
        assert f"process {holder.pid} job -" in str(caught.value)
        assert str(lock.parent) in str(caught.value)
    finally:
        holder.kill()
        holder.communicate()
    # The kernel released the lock when its holder ended.
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with exclusive(lock):
        assert lock.read_text().endswith("job 4711")
        with pytest.raises(UserError, match="job 4711"), exclusive(lock):
            pytest.fail("two holders")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_one_line_a_minute(caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    clock = Clock()
    with caplog.at_level(logging.INFO, logger="z1g"), Meter("train", 1000, done=100, clock=clock) as meter:
        for _ in range(600):
            clock.now += 0.5
            meter.advance(loss=0.123456)
    lines = [record.getMessage() for record in caplog.records]
    # 600 units in 300 seconds: five lines, one per minute, and a summary.
    assert lines[:-1] == [
        f"train {220 + 120 * minute}/1000  2/s  {390 - 60 * minute} s left  loss 0.1235" for minute in range(5)
    ]
    assert lines[-1] == "train 700/1000 in 300.0 s, 2/s"


def test_a_bar_shows_the_rate_too(monkeypatch) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    clock = Clock()
    with Meter("ingest", 40, done=10, clock=clock) as meter:
        clock.now += 4
        meter.advance(10, loss=0.5)
        assert meter._bar is not None
        (task,) = meter._bar.tasks
        assert (task.completed, task.total, task.fields["note"]) == (20, 40, "2.5/s  loss 0.5")


def test_a_meter_reports_no_success_after_an_error(caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    with (
        caplog.at_level(logging.INFO, logger="z1g"),
        pytest.raises(ValueError, match="stop"),
        Meter("fit", 3, clock=Clock()),
    ):
        raise ValueError("stop")
    assert caplog.records == []


def test_no_rate_yet_is_no_error() -> None:
    assert Meter("fit", 3, clock=Clock()).line() == "fit 0/3  0/s  ? s left"
    assert Meter("fit", 0, clock=Clock()).line() == "fit 0/0  0/s  ? s left"


def test_tracking_yields_every_item(monkeypatch) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    assert list(track(iter("abc"), "walk", 3)) == ["a", "b", "c"]
