"""The list of runs, `runs.txt`: no damaged bit passes, and what a killed process left is removed."""

import fcntl
from pathlib import Path
from threading import Thread

import pytest

from z1g.core.errors import UserError
from z1g.core.files import atomic_folder, write_text
from z1g.plan.runs import named, write_names

NAMES = ["study@lr=1e-4,guidance=2@fold=1@seed=2", "micro"]


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "runs.txt"
    write_names(file, NAMES)
    assert named([f"@{file}"]) == NAMES
    whole = file.read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            content = bytearray(whole)
            content[position] ^= 1 << bit
            file.write_bytes(content)
            with pytest.raises(UserError, match=r"runs\.txt"):
                named([f"@{file}"])


def test_a_list_by_hand_needs_no_checksum_and_may_be_of_windows(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(b"one\r\n\r\n  two  \r\n")
    assert named([f"@{tmp_path / 'mine.txt'}", "three"]) == ["one", "two", "three"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    for digits in ("0123abcd", "4567abcd"):
        (tmp_path / f".runs.txt.{digits}.tmp").write_text("mic")
    write_names(tmp_path / "runs.txt", NAMES)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["runs.txt"]


def test_a_process_that_still_writes_keeps_its_file(tmp_path: Path) -> None:
    """It holds the lock: the other one waits for it."""
    (tmp_path / "ablations").mkdir()
    unfinished = tmp_path / ".runs.txt.0123abcd.tmp"
    unfinished.write_text("mic")
    with (tmp_path / "ablations/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        writing = Thread(target=write_names, args=(tmp_path / "runs.txt", NAMES))
        writing.start()
        writing.join(0.05)
        assert writing.is_alive()
        assert unfinished.exists()
    writing.join()
    assert not unfinished.exists()
    assert named([f"@{tmp_path / 'runs.txt'}"]) == NAMES


def test_a_path_without_a_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="directory"):
        write_text(Path("."), "x")
    with pytest.raises(OSError, match="directory"), atomic_folder(Path(".")):
        pass
    assert list(tmp_path.iterdir()) == []
