"""Stage `ingest` with a data source that renders balls: table, contact sheet, and reused objects."""

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.builders import ball, plan, stage_path

from z1g.core.files import read_jsonl
from z1g.data.contact_sheet import BACKGROUND, CELL, LABEL, ContactSheet
from z1g.data.manifest import ObjectEntry
from z1g.data.shards import Rejected, read_objects, shard_path, sheet_path, table_path
from z1g.geometry.camera import CameraOptions
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.sources import Ingested
from z1g.sources.meshes import Meshes
from z1g.stages.ingest import run


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of rendered objects. Balls replace the meshes; `object1` is rejected."""
    drawn: list[str] = []

    def ingest(
        self: Meshes, objects: Sequence[ObjectEntry], camera: CameraOptions, scratch: Path, threads: int
    ) -> Iterator[Ingested]:
        for entry in objects:
            drawn.append(entry.id)
            flat = Rejected(entry.id, "it is flat")
            yield Ingested(flat if entry.id.startswith("object1") else ball(entry.id, camera, 24))

    monkeypatch.setattr(Meshes, "ingest", ingest)
    return drawn


def ingest(planned: Plan, threads: int = 1) -> Path:
    folder = stage_path(planned, "ingest")
    for chunk in range(planned.ablations["micro"].manifest.n_chunks):
        run(StageFolder.open(folder), chunk, threads)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Members of all shards."""
    results = {}
    for shard in sorted(folder.glob("chunk-*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                results[member.name] = file.read()
    return results


def test_table_shard_and_sheet(tmp_path: Path, rendered: list[str]) -> None:
    folder = ingest(plan(tmp_path))
    rows = read_jsonl(table_path(folder, 0))
    assert [(row["status"], row["reason"], row["n_views"]) for row in rows] == [
        ("ok", None, 14),
        ("quarantined", "it is flat", 0),
    ]
    assert [item.id for item in read_objects(shard_path(folder, 0))] == [rows[0]["id"]]
    sheet = np.asarray(Image.open(sheet_path(folder, 0))).astype(int)
    assert sheet.shape == (CELL + LABEL, 2 * CELL, 3)
    ball_cell, fault_cell = sheet[:CELL, :CELL], sheet[:CELL, CELL:]
    assert np.abs(ball_cell[CELL // 2, CELL // 2] - BACKGROUND).max() > 20
    assert (ball_cell[2, 2] == BACKGROUND).all()
    assert (fault_cell[..., 0] > fault_cell[..., 1] + 60).sum() > 20  # the reason in red


def test_without_a_number_of_threads_there_is_one_for_each_core(tmp_path: Path, rendered: list[str]) -> None:
    assert contents(ingest(plan(tmp_path / "a"), threads=0)) == contents(ingest(plan(tmp_path / "b")))


def test_objects_of_other_data_sets_are_reused(tmp_path: Path, rendered: list[str]) -> None:
    first = ingest(plan(tmp_path, n_objects=4))
    small = contents(first)
    rendered.clear()
    # Two more objects, one in the middle of the order, and other chunks.
    (tmp_path / "meshes/object00.obj").write_text("v 9 9 9\n")
    larger = plan(tmp_path, n_objects=5, data={"chunk_size": 3})
    second = ingest(larger)
    assert second != first
    assert [name.rpartition("-")[0] for name in rendered] == ["object00", "object1", "object4"]
    ids = [entry.id for entry in larger.ablations["micro"].manifest.objects]
    rows = [row for chunk in range(2) for row in read_jsonl(table_path(second, chunk))]
    assert [row["id"] for row in rows] == ids
    assert [row["status"] for row in rows] == ["ok", "ok", "quarantined", "ok", "ok", "ok"]
    large = contents(second)
    assert {name: large[name] for name in small} == small


@pytest.mark.parametrize("change", ["options", "content", "recipe", "unfinished"])
def test_nothing_else_is_reused(tmp_path: Path, rendered: list[str], change: str) -> None:
    folder = ingest(plan(tmp_path, n_objects=2))
    n_before = len(rendered)
    if change == "content":
        (tmp_path / "meshes/object0.obj").write_text("v 7 7 7\n")
        (tmp_path / "meshes/object9.obj").write_text("v 8 8 8\n")
    elif change == "recipe":
        record = folder / "stage.json"
        record.write_text(record.read_text().replace('"recipe": "', '"recipe": "other'))
    elif change == "unfinished":
        table_path(folder, 0).unlink()
    camera = {"train_views": 5} if change == "options" else {}
    (tmp_path / "more").mkdir()
    (tmp_path / "more/object5.obj").write_text("v 5 5 5\n")
    paths = [str(tmp_path / "meshes"), str(tmp_path / "more")]
    if change == "content":
        larger = plan_of(tmp_path, paths)
    else:
        larger = plan(tmp_path, n_objects=2, data={"paths": paths}, camera=camera)
    ingest(larger)
    again = [name for name in rendered[n_before:] if not name.startswith("object1-")]
    assert {"object0"} <= {name.rpartition("-")[0] for name in again}


def plan_of(root: Path, paths: list[str]) -> Plan:
    """A plan of the meshes in `paths`, without writing any."""
    from support.builders import experiment

    from z1g.config.resolve import Ablation

    planned = Plan([Ablation("micro", "", "micro", {}, experiment(root, data={"paths": paths}))], root / "results")
    planned.write()
    return planned


def test_a_manifest_follows_objects_that_moved(tmp_path: Path, rendered: list[str]) -> None:
    before = ingest(plan(tmp_path, n_objects=2))
    (tmp_path / "meshes").rename(tmp_path / "moved")
    moved = plan_of(tmp_path, [str(tmp_path / "moved")])
    assert stage_path(moved, "ingest") == before
    sources = [entry.source for entry in StageFolder.open(before).manifest().objects]
    assert all(Path(source).is_file() for source in sources)


def test_contact_sheets_have_rows_of_eight() -> None:
    sheet = ContactSheet(19)
    assert sheet.image.size == (8 * CELL, 3 * (CELL + LABEL))
    for i in range(19):
        sheet.add("a name that is far too long for its cell", None, "because " * (40 * i))
    assert ContactSheet(0).image.size == (CELL, CELL + LABEL)


def test_colors_of_transparent_pixels_are_ignored() -> None:
    images = []
    for hidden in (0, 255):
        rgba = np.full((200, 200, 4), hidden, np.uint8)
        rgba[..., 3] = 0
        rgba[50:149, 50:149] = (10, 200, 30, 255)
        sheet = ContactSheet(1)
        sheet.add("x", rgba)
        images.append(np.asarray(sheet.image).astype(int))
    assert np.abs(images[0] - images[1]).max() <= 1
