"""What is read from shards, tables and lists is verified against its checksum."""

import logging
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import xxhash
from safetensors.torch import load_file, save_file
from support.builders import OBJECTS, ball, fill, plan, stage_path

from z1g.core import unchecked
from z1g.core.errors import UserError
from z1g.core.files import read_jsonl, write_jsonl
from z1g.core.sealed import Damaged
from z1g.data.checksums import checksum_of_tensor
from z1g.data.manifest import Manifest, ObjectEntry
from z1g.data.scenes import SceneStore
from z1g.data.sealed_tensors import load_sealed, save_sealed
from z1g.data.shards import RenderedObject, ShardReader, shard_path, table_path, write_object
from z1g.data.splat_files import SplatFile, with_checksums
from z1g.data.tensor_shards import damaged_shards, remembered
from z1g.geometry.camera import CameraOptions

CAMERA = CameraOptions(train_views=2, validation_views=1, test_views=1)


@pytest.fixture
def items() -> list[RenderedObject]:
    return [ball(name, CAMERA, 8) for name in OBJECTS[:2]]


@pytest.fixture
def shard(items: list[RenderedObject], tmp_path: Path) -> Path:
    path = shard_path(tmp_path, 0)
    with tarfile.open(path, "w") as tar:
        rows = [{"id": item.id, "status": "ok", **write_object(tar, item).row()} for item in items]
    write_jsonl(table_path(tmp_path, 0), rows)
    return path


def test_the_table_has_the_checksum_of_every_member(shard: Path) -> None:
    """Against the files that another reader of tars finds."""
    with tarfile.open(shard) as tar:
        contents = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    for row in read_jsonl(table_path(shard.parent, 0)):
        files = [content for name, content in contents.items() if name.startswith(row["id"])]
        assert row["checksums"] == "".join(xxhash.xxh3_64(content).hexdigest() for content in files)
        assert len(files) == CAMERA.n_views + 2


@pytest.mark.parametrize("part", ["json", "003.png", "depth.npy"])
def test_every_flipped_bit_of_what_is_read_stops_the_reader(part: str, shard: Path) -> None:
    with tarfile.open(shard) as tar:
        member = tar.getmember(f"{OBJECTS[1]}.{part}")
    content = shard.read_bytes()
    for byte in range(0, member.size, max(member.size // 25, 1)):
        changed = bytearray(content)
        changed[member.offset_data + byte] ^= 1 << byte % 8
        shard.write_bytes(changed)
        reader = ShardReader(shard)
        reader.read(OBJECTS[0])
        with pytest.raises(UserError, match=rf"chunk-00000\.tar is damaged: {OBJECTS[1]}\.{part} does not have the"):
            reader.read(OBJECTS[1])
        if part == "depth.npy":
            reader.read_views(OBJECTS[1], [0, 3])  # does not read it
        else:
            with pytest.raises(UserError, match="does not have the checksum"):
                reader.read_views(OBJECTS[1], [0, 3])


def test_damage_between_members_does_not_pass_for_a_broken_object(shard: Path) -> None:
    """A broken object would be left out; a damaged shard stops the job."""
    with tarfile.open(shard) as tar:
        header = tar.getmember(f"{OBJECTS[0]}.002.png").offset
    content = bytearray(shard.read_bytes())
    content[header] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"chunk-00000\.tar is damaged"):
        ShardReader(shard).read(OBJECTS[0])


def test_a_table_without_checksums_is_read_with_one_warning(
    shard: Path, items: list[RenderedObject], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unchecked, "_warned", set())
    table = table_path(shard.parent, 0)
    write_jsonl(table, [{k: v for k, v in row.items() if k != "checksums"} for row in read_jsonl(table)])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert ShardReader(shard).read(items[0].id).info == items[0].info
    assert len(caplog.records) == 1
    assert "their table has no checksums" in caplog.text


@pytest.fixture
def splats(tmp_path: Path) -> Path:
    tensors = {name: torch.rand(6, 14, 4, 4) for name in OBJECTS[:2]}
    file = tmp_path / "chunk-00000.safetensors"
    save_file(tensors, file)
    write_jsonl(file.with_suffix(".jsonl"), with_checksums([{"id": n} for n in (*OBJECTS[:2], "lost")], tensors))
    return file


def test_splats_are_verified_one_object_at_a_time(splats: Path) -> None:
    before = {name: tensor.clone() for name, tensor in load_file(splats).items()}
    content = bytearray(splats.read_bytes())
    content[-3] ^= 16
    splats.unlink()  # tensors may be views of the old file
    splats.write_bytes(content)
    (bad,) = [name for name, tensor in load_file(splats).items() if not torch.equal(tensor, before[name])]
    (good,) = before.keys() - {bad}
    assert torch.equal(SplatFile(splats).read(good), before[good])
    with pytest.raises(UserError, match=f"the splats of {bad} do not have the checksum in its table"):
        SplatFile(splats).read(bad)


def test_an_object_that_vanished_from_a_file_is_not_skipped(splats: Path) -> None:
    kept = dict(list(load_file(splats).items())[:1])
    save_file(kept, splats)
    with pytest.raises(UserError, match="does not have the objects of its table"):
        SplatFile(splats)
    splats.write_bytes(splats.read_bytes()[:30])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        SplatFile(splats)


@pytest.mark.parametrize("replace", [None, os.mkfifo, os.mkdir])
def test_lost_splats_are_said_and_not_waited_for(splats: Path, replace: Callable[[Path], None] | None) -> None:
    splats.unlink()
    if replace is not None:
        replace(splats)
    with pytest.raises(UserError, match=rf"^{splats} is damaged: it does not exist"):
        SplatFile(splats)


def test_the_checksum_of_a_tensor_depends_on_type_and_shape() -> None:
    tensor = torch.arange(6, dtype=torch.float32)
    others = [tensor.reshape(2, 3), tensor.view(torch.int32), tensor.flip(0), tensor[:5]]
    assert len({checksum_of_tensor(other) for other in [tensor, *others]}) == 5
    assert checksum_of_tensor(tensor.reshape(2, 3).t().t()) == checksum_of_tensor(others[0])
    for empty in (torch.tensor(1.0), torch.zeros(0), torch.ones(3, dtype=torch.bfloat16)):
        assert len(checksum_of_tensor(empty)) == 16


def test_damaged_splats_stop_training_instead_of_one_object(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    fill(planned)
    fit = stage_path(planned, "fit") / "chunk-00000.safetensors"
    tensors = load_file(fit)
    tensors[OBJECTS[0]][0, 0, 0, 0] += 1e-6
    save_file(tensors, fit)
    manifest, ingest = planned.ablations["micro"].manifest, stage_path(planned, "ingest")
    store = SceneStore(manifest, 1.5, ingest, fit.parent)
    with pytest.raises(UserError, match=rf"{fit.name} is not as job chunk-00000 wrote it"):
        store.splats(OBJECTS[0])
    assert store.splats(OBJECTS[1]) is not None


def test_the_list_of_objects_has_a_checksum(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = Manifest(tuple(ObjectEntry(f"o{i}", f"m/{i}.obj", license="CC0") for i in range(3)), 2)
    file = tmp_path / "manifest.jsonl"
    manifest.save(file)
    assert Manifest.load(file) == manifest
    text = file.read_text()
    for other in (text.replace("CC0", "CC1", 1), text.replace('size": 2', 'size": 3'), text[:-30],
                  text.replace('"checksum"', '"checksun"'), "", "[]\n"):  # fmt: skip
        assert other != text
        file.write_text(other)
        with pytest.raises(UserError, match=r"is damaged: .* start `snakemake` again"):
            Manifest.load(file)
    lines = text.splitlines()
    file.write_text("\n".join(['{"chunk_size": 2}', *lines[1:]]))
    unchecked._warned.clear()
    assert Manifest.load(file) == manifest, "lists of earlier versions have no checksum"
    assert "lists of objects of an earlier version have no checksum" in caplog.text
    for size in ("0", "-1", '"2"', "true", "null"):
        file.write_text("\n".join([f'{{"chunk_size": {size}}}', *lines[1:]]))
        with pytest.raises(UserError, match=r"is damaged: its chunks are of .* objects; start `snakemake` again"):
            Manifest.load(file)


@pytest.mark.parametrize("replace", [None, os.mkfifo, os.mkdir])
def test_a_list_that_is_no_file_is_said_and_not_waited_for(
    tmp_path: Path, replace: Callable[[Path], None] | None
) -> None:
    from z1g.plan.folder import StageFolder

    planned = plan(tmp_path)
    file = stage_path(planned, "ingest") / "manifest.jsonl"
    file.unlink()
    if replace is not None:
        replace(file)
    with pytest.raises(UserError, match=rf"^{file} cannot be read: .*; start `snakemake` again to write it again$"):
        StageFolder.open(stage_path(planned, "fit")).manifest()


def test_a_list_of_other_objects_is_refused(tmp_path: Path) -> None:
    from z1g.plan.folder import StageFolder

    first, second = plan(tmp_path / "a"), plan(tmp_path / "b", n_objects=3)
    folder = StageFolder.open(stage_path(first, "fit"))
    assert len(folder.manifest().objects) == 4
    (stage_path(first, "ingest") / "manifest.jsonl").write_bytes(
        (stage_path(second, "ingest") / "manifest.jsonl").read_bytes()
    )
    with pytest.raises(UserError, match="does not list the objects of"):
        folder.manifest()
    first.write()
    assert len(folder.manifest().objects) == 4, "planning repairs it"


def test_sealed_tensors_belong_to_their_owner(tmp_path: Path) -> None:
    file, tensors = tmp_path / "a.safetensors", {"x": torch.rand(3), "y": torch.rand(2, 2)}
    save_sealed(tensors, file, "one")
    assert load_sealed(file, "one").keys() == tensors.keys()
    with pytest.raises(Damaged):
        load_sealed(file, "two")
    save_file(tensors, file)
    with pytest.raises(Damaged):
        load_sealed(file, "one")


def test_a_lost_shard_is_no_damage_of_those_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("z1g.data.tensor_shards.SHARD", 2)
    folder, ids = tmp_path / "c", [str(i) for i in range(5)]
    remembered(folder, {}, ids, lambda names: {"n": torch.tensor([float(name) for name in names])})
    (folder / "shard-00000.safetensors").unlink()
    assert damaged_shards(folder) == []
    last = folder / "shard-00002.safetensors"
    (folder / "shard-00001.safetensors").rename(last)
    assert damaged_shards(folder) == [f"{last} is damaged: its tensors do not have its checksum"]


def test_damaged_remembered_tensors_are_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[list[str]] = []

    def make(names: object) -> dict[str, torch.Tensor]:
        calls.append(list(names))  # type: ignore[call-overload]
        return {"n": torch.tensor([float(name) for name in names])}  # type: ignore[attr-defined]

    folder, ids = tmp_path / "c", [str(i) for i in range(5)]
    first = remembered(folder, {"a": 1}, ids, make)
    assert torch.equal(remembered(folder, {"a": 1}, ids, make)["n"], first["n"])
    assert len(calls) == 1
    file = folder / "shard-00000.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert damaged_shards(folder) == [f"{file} is damaged: its tensors do not have its checksum"]
    assert torch.equal(remembered(folder, {"a": 1}, ids, make)["n"], first["n"])
    assert len(calls) == 2
    assert "cannot be read" in caplog.text
    (folder / "key.json").write_text("{")
    assert torch.equal(remembered(folder, {"a": 1}, ids, make)["n"], first["n"])
    assert damaged_shards(folder) == []
