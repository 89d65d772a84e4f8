"""Files are compared with the record of the job that wrote them."""

import logging
import os
import time
from pathlib import Path

import pytest

from z1g.core import recorded, unchecked
from z1g.core.errors import UserError
from z1g.core.files import read_json, write_json
from z1g.core.recorded import checked, checked_folder, checked_output, is_recorded
from z1g.jobs.records import recorded as recording


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A folder of stage `fit` with a chunk, a folder of networks, and the records of their jobs."""
    folder = tmp_path / "results/fit/0123456789"
    for name, text in {
        "stage.json": "{}", "chunk-00000.jsonl": "11\n", "chunk-00001/a.ply": "ply", "model/a.json": "{1}",
        "model/deep/b.bin": "weights",
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        old = time.time() - 3600
        os.utime(folder / name, (old, old))
    written = {"chunk-00000": "chunk-00000.jsonl", "chunk-00001": "chunk-00001", "fit": "model"}
    for job, name in written.items():
        with recording(folder, job, [folder / name]):
            pass
    return folder


def age(file: Path) -> None:
    """Make a file an hour old, so that no record of it is waited for."""
    old = time.time() - 3600
    os.utime(file, (old, old))


def test_what_is_as_recorded_passes(stage: Path, tmp_path: Path) -> None:
    for name in ("chunk-00000.jsonl", "chunk-00001/a.ply", "model/deep/b.bin"):
        assert checked(stage / name) == stage / name
    (stage / "model/.snakemake_timestamp").touch()
    age(stage / "model/.snakemake_timestamp")
    assert checked_folder(stage / "model") == stage / "model", "Snakemake marks folders"
    (tmp_path / "link").symlink_to(stage)
    assert checked(tmp_path / "link/chunk-00000.jsonl").read_text() == "11\n"
    assert checked(tmp_path / "nowhere") == tmp_path / "nowhere"


@pytest.mark.parametrize("text", ["51\n", "1", ""])
def test_a_changed_file_is_named_with_its_job_and_what_to_delete(stage: Path, text: str) -> None:
    file = stage / "chunk-00001/a.ply"
    checked(file)
    file.write_text(text)
    with pytest.raises(UserError) as raised:
        checked(file)
    said = str(raised.value)
    assert said.startswith(f"{file} is not as job chunk-00001 wrote it ({stage}/jobs/chunk-00001.json)")
    assert f"Delete {stage}/chunk-00001 and make it again: start `snakemake` with it as its target" in said
    assert not is_recorded(file)


def test_the_same_size_and_time_do_not_hide_a_change(stage: Path) -> None:
    file = stage / "chunk-00000.jsonl"
    about = file.stat()
    assert checked(file, content=False) == file
    file.write_text("51\n")
    with pytest.raises(UserError, match="its content has changed"):
        checked(file)
    assert checked(file, content=False) == file, "a reader of the size only"
    assert file.stat().st_size == about.st_size


def test_a_missing_and_an_extra_file_of_a_folder_are_errors(stage: Path) -> None:
    (stage / "model/c.json").write_text("{}")
    age(stage / "model/c.json")
    with pytest.raises(UserError, match=r"c\.json is not as job fit wrote it .*: it is not in that record"):
        checked_folder(stage / "model")
    (stage / "model/c.json").unlink()
    (stage / "model/a.json").unlink()
    with pytest.raises(UserError, match=r"a\.json is not as job fit wrote it .*: it does not exist"):
        checked_folder(stage / "model")


def test_a_damaged_or_foreign_record_is_an_error(stage: Path) -> None:
    record = stage / "jobs/chunk-00000.json"
    content = record.read_bytes()
    for other in (content.replace(b'"bytes": 3', b'"bytes": 7'), content[:40], b"",
                  (stage / "jobs/chunk-00001.json").read_bytes()):  # fmt: skip
        record.write_bytes(other)
        with pytest.raises(UserError, match="It records what job chunk-00000 wrote; delete it and the outputs"):
            checked(stage / "chunk-00000.jsonl")
    record.write_text('{"job": "chunk-00000", "attempts": [1], "outputs": {}}')
    with pytest.raises(UserError, match="It records what job chunk-00000 wrote; delete it and the outputs"):
        checked(stage / "chunk-00000.jsonl")


def test_a_lost_record_is_an_error_and_without_any_record_there_is_one_warning(
    stage: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unchecked, "_warned", set())
    (stage / "jobs/chunk-00000.json").unlink()
    with pytest.raises(UserError, match="it is not in that record"):
        checked(stage / "chunk-00000.jsonl")
    for record in (stage / "jobs").iterdir():
        record.unlink()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            checked(stage / "chunk-00000.jsonl")
            checked(stage / "chunk-00001/a.ply")
    assert len(caplog.records) == 1
    assert f"no job recorded what it wrote in {stage}" in caplog.text


def test_the_record_of_a_new_file_is_waited_for(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file systems may show a record later than its file."""
    file = stage / "chunk-00002.jsonl"
    file.write_text("new")

    def appear(_: float) -> None:
        with recording(stage, "chunk-00002", [file]):
            pass

    monkeypatch.setattr(recorded.time, "sleep", appear)
    assert checked(file) == file


def test_records_of_earlier_versions_have_no_checksum(stage: Path) -> None:
    record = stage / "jobs/chunk-00000.json"
    write_json(record, {key: value for key, value in read_json(record).items() if key != "checksum"})
    checked(stage / "chunk-00000.jsonl")
    (stage / "chunk-00000.jsonl").write_text("51\n")
    with pytest.raises(UserError, match="its content has changed"):
        checked(stage / "chunk-00000.jsonl")


def test_splats_of_photographs_are_compared_with_the_record_beside_them(tmp_path: Path) -> None:
    file = tmp_path / "chair.ply"
    file.write_text("ply")
    assert checked_output(file) == file
    write_json(tmp_path / "chair.json", {"files": {"chair.ply": {"sha256": recorded.sha256(file), "bytes": 3}}})
    assert checked_output(file) == file
    file.write_text("plz")
    with pytest.raises(UserError, match="is not as `z1g infer` wrote it"):
        checked_output(file)
    write_json(tmp_path / "chair.json", {"files": 3})
    assert checked_output(file) == file, "the record of something else"


def test_a_pipe_has_no_digest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(OSError, match="not a regular file"):
        recorded.sha256(tmp_path / "a")


def test_stage_folders_may_be_links_to_another_disk(stage: Path, tmp_path: Path) -> None:
    """A folder of a stage or of all of its ids, which has another name there."""
    write_json(stage / "stage.json", {"stage": "fit", "id": stage.name})
    for number, folder in enumerate((stage, stage.parent)):
        elsewhere = tmp_path / f"disk{number}/other"
        elsewhere.parent.mkdir()
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere)
        for name in ("model/a.json", "chunk-00000.jsonl"):
            assert checked(stage / name) == stage / name
    (stage / "model/a.json").write_text("{2}")
    age(stage / "model/a.json")
    with pytest.raises(UserError, match="not as job fit wrote it"):
        checked(stage / "model/a.json")
