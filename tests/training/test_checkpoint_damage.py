"""Checkpoints with a flipped bit, or in another's place, are not used."""

import os
import zipfile
from pathlib import Path

import pytest
import torch

from z1g.core.errors import UserError
from z1g.core.sealed import Damaged
from z1g.training.checkpoint import CheckpointFolder
from z1g.training.zip_seal import COMMENT, require_sealed, seal


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    for step in (2, 4):
        checkpoints.save(step, {"weights": torch.full((50,), float(step)), "rows": [step]})
    return checkpoints


def test_every_flipped_bit_is_noticed(folder: CheckpointFolder) -> None:
    file = folder.file(4)
    content = file.read_bytes()
    for place in range(0, 8 * len(content), 7):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        file.write_bytes(changed)
        with pytest.raises(Damaged):
            require_sealed(file, file.name)
    file.write_bytes(content)
    require_sealed(file, file.name)
    assert zipfile.is_zipfile(file)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    folder: CheckpointFolder, caplog: pytest.LogCaptureFixture
) -> None:
    content = bytearray(folder.file(4).read_bytes())
    at = content.index(torch.tensor(4.0).numpy().tobytes() * 50)
    content[at] ^= 1
    folder.file(4).write_bytes(content)
    assert torch.load(folder.file(4), weights_only=True)["weights"][0] != 4, "PyTorch itself does not notice"
    loaded = folder.load()
    assert loaded is not None
    assert loaded[0] == 2
    assert "step-00000004.pt cannot be read, trying the one before: it does not have its checksum" in caplog.text
    folder.file(2).write_bytes(folder.file(4).read_bytes())
    with pytest.raises(UserError, match="none of 2 checkpoints can be read"):
        folder.load()
    assert len(folder.damaged()) == 2


def test_a_pipe_is_no_checkpoint_and_not_waited_for(folder: CheckpointFolder) -> None:
    folder.file(4).unlink()
    os.mkfifo(folder.file(4))
    loaded = folder.load()
    assert loaded is not None
    assert loaded[0] == 2


def test_a_checkpoint_of_another_step_or_stage_is_not_taken(folder: CheckpointFolder, tmp_path: Path) -> None:
    folder.file(4).write_bytes(folder.file(2).read_bytes())
    loaded = folder.load()
    assert loaded is not None
    assert loaded[0] == 2
    for name in ("aa", "bb"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stage.json").write_text("{}")
        CheckpointFolder(tmp_path / name / "checkpoints").save(4, {"weights": torch.zeros(3)})
    first, second = (CheckpointFolder(tmp_path / name / "checkpoints") for name in ("aa", "bb"))
    first.file(4).write_bytes(second.file(4).read_bytes())
    with pytest.raises(UserError, match="none of 1 checkpoint can"):
        first.load()


def test_checkpoints_of_earlier_versions_are_read(folder: CheckpointFolder) -> None:
    torch.save({"weights": torch.ones(3)}, folder.file(6))
    loaded = folder.load()
    assert loaded is not None
    assert loaded[0] == 6
    assert folder.damaged() == []


def test_best_weights_are_checked(folder: CheckpointFolder) -> None:
    folder.save_best(4, {"weights": torch.ones(30)})
    file = folder.best(4)
    assert folder.load_best(4)["weights"].sum() == 30
    content = bytearray(file.read_bytes())
    content[-COMMENT - 300] ^= 4
    file.write_bytes(content)
    with pytest.raises(UserError, match="does not have its checksum"):
        folder.load_best(4)


def test_only_archives_without_a_comment_are_sealed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="not a zip archive"):
        seal(tmp_path / "a", "")
