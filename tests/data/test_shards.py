"""Reading shards: with and without their table, in part, and with bounded memory."""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.builders import OBJECTS, ball, fill, plan, stage_path

from z1g.bench.loader import Sizes, measure
from z1g.core.errors import UserError
from z1g.core.files import read_jsonl, write_jsonl
from z1g.data import scenes, shards
from z1g.data.scenes import SceneStore
from z1g.data.shards import BrokenObject, RenderedObject, ShardReader, shard_path, table_path, write_object
from z1g.geometry.camera import CameraOptions
from z1g.plan.folder import StageFolder
from z1g.sources.base import CHUNK_SIZE, MAX_CHUNKS
from z1g.sources.meshes import Meshes
from z1g.stages import fit

CAMERA = CameraOptions(train_views=2, validation_views=1, test_views=1)


@pytest.fixture
def items() -> list[RenderedObject]:
    return [ball(name, CAMERA, 8) for name in OBJECTS[:3]]


@pytest.fixture
def shard(items: list[RenderedObject], tmp_path: Path) -> Path:
    """Three objects and their table, which lists a quarantined fourth."""
    path = shard_path(tmp_path, 0)
    with tarfile.open(path, "w") as tar:
        stored = [write_object(tar, item) for item in items]
    rows = [{"id": item.id, "status": "ok", **place.row()} for item, place in zip(items, stored, strict=True)]
    write_jsonl(table_path(tmp_path, 0), [*rows, {"id": "broken", "status": "quarantined"}])
    return path


def assert_equal(first: RenderedObject, second: RenderedObject) -> None:
    assert (first.id, first.fov_y_deg, first.info) == (second.id, second.fov_y_deg, second.info)
    for name in ("c2w", "rgba", "depth"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("table", [True, False])
def test_what_was_written_is_read_with_and_without_the_table(
    table: bool, shard: Path, items: list[RenderedObject]
) -> None:
    if not table:
        table_path(shard.parent, 0).unlink()
    reader = ShardReader(shard)
    assert reader.ids == [item.id for item in items]
    for item in reversed(items):
        assert_equal(reader.read(item.id), item)


def test_with_its_table_a_shard_is_opened_without_reading_it(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "members_of_tar", lambda *_: pytest.fail("the tar is read"))
    assert len(ShardReader(shard).ids) == 3


@pytest.mark.parametrize("row", ['{"id": "x", "status": "ok"}', "[]", "no JSON", '{"id": "x"}'])
def test_tables_of_older_versions_do_not_matter(row: str, shard: Path, items: list[RenderedObject]) -> None:
    table_path(shard.parent, 0).write_text(row + "\n")
    assert_equal(ShardReader(shard).read(items[1].id), items[1])


def test_a_table_of_another_tar_is_noticed(shard: Path, items: list[RenderedObject]) -> None:
    with tarfile.open(shard, "w") as tar:
        for item in reversed([*items, ball(OBJECTS[3], CAMERA, 12)]):
            write_object(tar, item)
    for error in (UserError, BrokenObject):
        reader = ShardReader(shard)
        for item in items:
            with pytest.raises(error, match="is not at its recorded position"):
                reader.read(item.id)
        # A table of an earlier version has no checksums.
        rows = [{**row, "checksums": ""} for row in read_jsonl(table_path(shard.parent, 0))]
        write_jsonl(table_path(shard.parent, 0), rows)


@pytest.mark.parametrize(
    "change",
    [{"span": [-5, 100]}, {"span": [9, 5]}, {"span": [0, "end"]}, {"checksums": 5}, {"id": 5}, {"id": OBJECTS[1]}],
)
def test_a_table_with_places_that_are_none_is_damaged(change: dict[str, Any], shard: Path) -> None:
    """Else objects would be counted that are not there, or what follows would be no error of the table."""
    table = table_path(shard.parent, 0)
    first, *others = read_jsonl(table)
    write_jsonl(table, [{**first, **change}, *others])
    with pytest.raises(UserError, match=rf"^{table} is damaged: its row \[.* is no place of an object"):
        ShardReader(shard)


def test_two_files_of_one_name_are_no_object(shard: Path, items: list[RenderedObject]) -> None:
    """The second would be used in place of the first."""
    table_path(shard.parent, 0).unlink()
    with tarfile.open(shard, "a") as tar:
        write_object(tar, items[0])
    with pytest.raises(UserError, match=rf"is not a complete tar \(it has {items[0].id}\.json twice\)"):
        ShardReader(shard)


@pytest.mark.parametrize(
    "change", [{"fov_y_deg": "wide"}, {"fov_y_deg": -5}, {"c2w": 5}, {"info": None}, {"id": OBJECTS[1]}, []]
)
def test_a_header_that_is_none_breaks_its_object_only(
    change: Any, shard: Path, items: list[RenderedObject], monkeypatch: pytest.MonkeyPatch
) -> None:
    table_path(shard.parent, 0).unlink()
    loads = json.loads
    monkeypatch.setattr(shards.json, "loads", lambda text: {**loads(text), **change} if change != [] else [])
    with pytest.raises(BrokenObject, match=rf"^{items[0].id} in {shard} cannot be read: "):
        ShardReader(shard).read(items[0].id)


def test_shards_of_other_chunks_are_noticed_by_whoever_reads_a_data_set(tmp_path: Path) -> None:
    """Copied by hand, without records of jobs: training would be on other objects, and a fit ended by a KeyError."""
    planned = plan(tmp_path)
    fill(planned)
    ingest, manifest = stage_path(planned, "ingest"), planned.ablations["micro"].manifest
    for file in (shard_path, table_path):
        shutil.copy(file(ingest, 1), file(ingest, 0))
    message = r"chunk-00000\.tar is .*: it has object\d\S+, which the manifest does not list in this chunk\. Delete"
    with pytest.raises(UserError, match=message):
        SceneStore(manifest, 1.5, ingest)
    with pytest.raises(UserError, match=message):
        fit.run(StageFolder.open(stage_path(planned, "fit")), 0, threads=1)


def test_an_object_that_breaks_after_its_fit_is_an_error_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(tmp_path)
    fill(planned)
    store = SceneStore(planned.ablations["micro"].manifest, 1.5, stage_path(planned, "ingest"))
    monkeypatch.setattr(ShardReader, "_read", fail := Mock(side_effect=BrokenObject("it has no views")))
    for read in (store.__getitem__, store.rendered, lambda name: store.seen(name, [0])):
        with pytest.raises(UserError, match=r"chunk-00000\.tar is .*: it has no views\. Delete"):
            read(store.ids[0])
    assert fail.call_count == 3


def test_a_tar_that_is_cut_short_is_refused(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(UserError, match="not a complete tar"):
        ShardReader(shard)


def test_a_lost_shard_is_named_with_what_to_do(shard: Path) -> None:
    shard.unlink()
    with pytest.raises(UserError, match=rf"^{shard} is damaged: it does not exist\. Delete it and make it again"):
        ShardReader(shard)


def test_a_few_views_are_those_of_the_whole(shard: Path, items: list[RenderedObject]) -> None:
    part = ShardReader(shard).read_views(items[1].id, [4, 0, 7])
    np.testing.assert_array_equal(part.rgba, items[1].rgba[[4, 0, 7]])
    np.testing.assert_array_equal(part.c2w, items[1].c2w)
    assert part.depth is None
    with pytest.raises(BrokenObject, match="is missing"):
        ShardReader(shard).read_views(items[1].id, [99])


def test_a_scene_in_part_is_part_of_the_scene(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    fill(planned)
    ingest, fitted = stage_path(planned, "ingest"), stage_path(planned, "fit")
    store = SceneStore(planned.ablations["micro"].manifest, 1.5, ingest, fitted)
    for name in store.ids:
        whole, part = store[name], store.views(name, [5, 2])
        np.testing.assert_array_equal(part.rgba, whole.rgba[[5, 2]])
        torch.testing.assert_close(part.c2w, whole.c2w[[5, 2]], atol=0, rtol=0)
        torch.testing.assert_close(part.splats, whole.splats, atol=0, rtol=0)
        seen = store.seen(name, [5, 2])
        np.testing.assert_array_equal(seen.rgba, part.rgba)
        assert seen.splats is None


def test_scenes_in_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(tmp_path)
    fill(planned)
    store = SceneStore(planned.ablations["micro"].manifest, 1.5, stage_path(planned, "ingest"))
    a, b, c = store.ids[:3]
    monkeypatch.setattr(scenes, "CACHE_BYTES", 2 * store[a].nbytes)
    first, second = store[a], store[b]
    assert store[a] is first
    store[c]
    assert store[a] is first, "used last"
    assert store[b] is not second, "the oldest was removed"


@given(n=st.integers(1, 1_000_000))
def test_large_sets_get_large_chunks(n: int) -> None:
    size = Meshes().chunk_size_for(n)
    assert -(-n // size) <= MAX_CHUNKS
    assert (size == CHUNK_SIZE) == (n <= CHUNK_SIZE * MAX_CHUNKS)
    assert Meshes(chunk_size=7).chunk_size_for(n) == 7


def test_the_bench_reads_what_it_wrote(tmp_path: Path) -> None:
    sizes = Sizes(objects=6, views=12, size=16, splat_size=8, rendered=3, batch=2, workers=0)
    figures = measure(sizes, soak_minutes=0.002, parent=tmp_path)
    rates = [value for name, value in figures.items() if name.endswith(("_s", "_core"))]
    assert len(rates) == 5
    assert min(rates) > 0
    assert figures["soak_samples"] >= 2
    assert figures["soak_mb_last"] > 0
    assert not list(tmp_path.iterdir())
