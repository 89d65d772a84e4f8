"""The list of runs, `runs.txt`: no damaged bit passes, and what a killed process left is removed."""

import os
from pathlib import Path

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


def test_what_a_killed_process_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    old, young = tmp_path / ".runs.txt.0123abcd.tmp", tmp_path / ".runs.txt.4567abcd.tmp"
    for file in (old, young):
        file.write_text("mic")
    os.utime(old, (1, 1))
    write_names(tmp_path / "runs.txt", NAMES)
    assert sorted(file.name for file in tmp_path.iterdir()) == [young.name, "runs.txt"]


def test_a_path_without_a_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="directory"):
        write_text(Path("."), "x")
    with pytest.raises(OSError, match="directory"), atomic_folder(Path(".")):
        pass
    assert list(tmp_path.iterdir()) == []
