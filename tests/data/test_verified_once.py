"""A part of a shard is verified once in a process, and again when its file is another or `AGAIN_S` has passed."""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import xxhash
from safetensors.torch import save_file
from support.builders import OBJECTS, ball

from z1g.core.errors import UserError
from z1g.core.files import write_jsonl
from z1g.data import checksums
from z1g.data.checksums import OfState
from z1g.data.shards import ShardReader, shard_path, table_path, write_object
from z1g.data.splat_files import SplatFile, with_checksums
from z1g.geometry.camera import CameraOptions

CAMERA = CameraOptions(train_views=2, validation_views=1, test_views=1)
FIRST, SECOND = OBJECTS[:2]
IMAGES = len(["json", "000.png", "003.png"])
"""Files that a read of the views 0 and 3 verifies."""


@pytest.fixture(autouse=True)
def of_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were just written count as old ones."""
    monkeypatch.setattr(checksums, "RACY_S", -1e9)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of what was hashed."""
    lengths: list[int] = []

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(content: bytes) -> Any:
            lengths.append(len(content))
            return function(content)

        return call

    for name in ("xxh3_64_hexdigest", "xxh3_64"):
        monkeypatch.setattr(xxhash, name, counted(getattr(xxhash, name)))
    return lengths


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = shard_path(tmp_path, 0)
    with tarfile.open(path, "w") as tar:
        rows = [{"id": n, "status": "ok", **write_object(tar, ball(n, CAMERA, 8)).row()} for n in (FIRST, SECOND)]
    write_jsonl(table_path(tmp_path, 0), rows)
    return path


@pytest.fixture
def splats(tmp_path: Path) -> Path:
    tensors = {name: torch.rand(6, 14, 4, 4) for name in (FIRST, SECOND)}
    file = tmp_path / "fit" / "chunk-00000.safetensors"
    file.parent.mkdir()
    save_file(tensors, file)
    write_jsonl(file.with_suffix(".jsonl"), with_checksums([{"id": name} for name in tensors], tensors))
    return file


def flip(file: Path, position: int, times: os.stat_result | None = None) -> None:
    """Flip a bit of a file in place, at a time that its file system tells apart; times: those that it gets back."""
    changed = file.stat().st_ctime_ns
    while file.stat().st_ctime_ns == changed:
        file.touch()
    with file.open("r+b") as stream:
        stream.seek(position)
        (byte,) = stream.read(1)
        stream.seek(position)
        stream.write(bytes([byte ^ 4]))
    if times is not None:
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def member(shard: Path, name: str) -> int:
    """Position of a byte of a member."""
    with tarfile.open(shard) as tar:
        return tar.getmember(name).offset_data + 40


def test_views_are_hashed_by_their_first_read_only(shard: Path, hashed: list[int]) -> None:
    reader = ShardReader(shard)
    hashed.clear()
    first = reader.read_views(FIRST, [0, 3])
    assert len(hashed) == IMAGES
    assert (reader.read_views(FIRST, [3, 0]).rgba == first.rgba[::-1]).all()
    assert len(hashed) == IMAGES
    reader.read_views(FIRST, [0, 4])
    assert len(hashed) == IMAGES + 1
    reader.read_views(SECOND, [0, 3])
    assert len(hashed) == 2 * IMAGES + 1


def test_splats_are_hashed_by_their_first_read_only(splats: Path, hashed: list[int]) -> None:
    file = SplatFile(splats)
    hashed.clear()
    first = file.read(FIRST)
    assert len(hashed) == 1
    assert torch.equal(file.read(FIRST), first)
    assert len(hashed) == 1
    file.read(SECOND)
    assert len(hashed) == 2


@pytest.mark.parametrize("times", ["new times", "times of before", "another file"])
def test_damage_after_the_first_read_is_noticed(times: str, shard: Path, splats: Path) -> None:
    reader, file = ShardReader(shard), SplatFile(splats)
    for _ in range(2):
        reader.read(FIRST)
        _ = file.read(FIRST), file.read(SECOND)
    for path, position in ((shard, member(shard, f"{FIRST}.003.png")), (splats, splats.stat().st_size - 2)):
        before = path.stat()
        if times == "another file":
            copy = path.with_name("copy")
            copy.write_bytes(path.read_bytes())
            flip(copy, position, before)
            copy.replace(path)
        else:
            flip(path, position, before if times == "times of before" else None)
    for read in (lambda: reader.read(FIRST), lambda: reader.read_views(FIRST, [0, 3])):
        for _ in range(2):
            with pytest.raises(UserError, match=rf"{FIRST}\.003\.png does not have the checksum in its table"):
                read()
    reader.read_views(FIRST, [0, 4])
    reader.read(SECOND)
    noticed = 0
    for name in (FIRST, SECOND):
        try:
            file.read(name)
        except UserError:
            noticed += 1
    assert noticed == 1


def test_an_object_that_was_not_read_yet_is_not_trusted(shard: Path) -> None:
    flip(shard, member(shard, f"{SECOND}.003.png"))
    reader = ShardReader(shard)
    for _ in range(2):
        reader.read(FIRST)
        reader.read_views(SECOND, [0, 4])
        with pytest.raises(UserError, match=rf"{SECOND}\.003\.png does not have"):
            reader.read_views(SECOND, [0, 3])


def test_a_file_that_was_just_written_is_verified_by_every_read(
    shard: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next change may have the same time."""
    monkeypatch.setattr(checksums, "RACY_S", 1e9)
    reader = ShardReader(shard)
    for reads in range(1, 4):
        reader.read_views(FIRST, [0, 3])
        assert len(hashed) >= reads * IMAGES


def about(**other: float) -> os.stat_result:
    """What the file system says about a file."""
    values = {"st_dev": 1, "st_ino": 2, "st_size": 3, "st_mtime_ns": 4, "st_ctime_ns": 5, "st_mtime": 6, "st_ctime": 7}
    return cast(os.stat_result, SimpleNamespace(**values | other))


def test_what_is_known_is_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    known: OfState[set[str]] = OfState(set)
    now = 7.0 * checksums.AGAIN_S
    monkeypatch.setattr(checksums, "time", SimpleNamespace(monotonic=lambda: now, time=lambda: 1e9))
    known(about()).add("a")
    now += checksums.AGAIN_S - 1
    assert known(about()) == {"a"}
    now += 1
    assert known(about()) == set()


@pytest.mark.parametrize("what", ["st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns"])
def test_each_state_has_its_own(what: str) -> None:
    """Also for a thread that still reads the file that was replaced."""
    known: OfState[set[str]] = OfState(set)
    old = known(about())
    new = known(about(**{what: 99}))
    old.add("of the old one")
    assert known(about(**{what: 99})) is new
    assert new == set()
