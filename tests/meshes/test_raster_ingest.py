"""Ingest by the rasterizer in processes of its own: quarantine, limits, crashes, and what follows it."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.meshes import axes, cuboid, ingest_folder
from support.raster import UV, card, in_software, png, rasterizer

from z1g.core.errors import UserError
from z1g.core.files import read_jsonl
from z1g.data.shards import RenderedObject, read_objects, shard_path, table_path
from z1g.geometry.camera import INPUT_VIEWS, Cameras, pixel_rays
from z1g.meshes.lighting import Hdri
from z1g.meshes.renderers import Blender, Raster
from z1g.sources.meshes import Meshes
from z1g.stages.ingest import run

SIZE = 32
TEXTURED = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
FAULTY = """
import os, signal, time
from z1g.meshes.raster import worker
real = worker.render_object
def render_object(item, *further):
    if item["id"].startswith("hang"):
        time.sleep(60)
    if item["id"].startswith("die"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return real(item, *further)
worker.render_object = render_object
worker.main()
"""


@pytest.fixture(scope="module", autouse=True)
def _opengl() -> None:
    rasterizer(16)


def ingest(meshes: Path, folder: Path, renderer: Raster | Blender, threads: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    data = Meshes(paths=(str(meshes),), renderer=renderer)
    run(ingest_folder(folder, data), 0, threads)
    return folder


def objects(folder: Path) -> dict[str, RenderedObject]:
    """Those in the shard, by name without content hash."""
    return {item.id.rpartition("-")[0]: item for item in read_objects(shard_path(folder, 0))}


def reasons(folder: Path) -> dict[str, str | None]:
    return {row["id"].rpartition("-")[0]: row["reason"] for row in read_jsonl(table_path(folder, 0))}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good objects and some that cannot be rendered."""
    folder = tmp_path_factory.mktemp("meshes")
    axes(folder)
    (folder / "box.obj").write_text(cuboid((2, 2, 2), (4, 4, 4)))
    (folder / "clear.obj").write_text("mtllib clear.mtl\nusemtl m\n" + cuboid((0, 0, 0), (1, 2, 1)))
    (folder / "clear.mtl").write_text("newmtl m\nKd 1 1 1\nd 0\n")
    card(TEXTURED, png(np.zeros((1, 30_000, 3), np.uint8))).save(folder / "wide.glb")
    lost = card(TEXTURED, png(np.zeros((4, 4, 3), np.uint8)))
    values = np.concatenate([UV, UV])
    values[3] = np.nan
    primitive = lost.document["meshes"][0]["primitives"][0]
    primitive["attributes"]["TEXCOORD_0"] = lost.accessor(values)
    lost.save(folder / "lost.glb")
    document = {**card().document, "buffers": [{"uri": "gone.bin", "byteLength": 999}]}
    (folder / "empty.gltf").write_text(json.dumps(document))
    (folder / "cut.glb").write_bytes(card(TEXTURED, png(np.zeros((4, 4, 3), np.uint8))).glb()[:-300])
    return folder


@pytest.fixture(scope="module")
def ingested(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ingest(hostile, tmp_path_factory.mktemp("first"), Raster(resolution=SIZE, normals=True))


@pytest.mark.slow
def test_objects_that_cannot_be_rendered_have_a_reason(ingested: Path) -> None:
    actual = reasons(ingested)
    assert actual.pop("axes") is None
    assert actual.pop("box") is None
    expected = {
        "clear": "blank: every view is empty", "wide": "30000x1 pixels, above the limit", "empty": "gone.bin",
        "lost": "texture coordinates that are not finite", "cut": "truncated",
    }  # fmt: skip
    assert actual.keys() == expected.keys()
    for name, words in expected.items():
        assert words in str(actual[name]), name


@pytest.mark.slow
def test_depth_and_normals_are_those_of_a_box(ingested: Path) -> None:
    item = objects(ingested)["box"]
    assert item.info["renderer"].startswith("raster, ")
    assert item.info["n_triangles"] == 12
    cameras = Cameras(torch.from_numpy(item.c2w[None, list(INPUT_VIEWS)]), item.fov_y_deg, SIZE, SIZE)
    origin, direction = (x[0].permute(0, 2, 3, 1).numpy() for x in pixel_rays(cameras))
    half = 0.5 / np.sqrt(3)
    near, far = (-half - origin) / direction, (half - origin) / direction
    entries = np.minimum(near, far)
    enter, leave = entries.max(-1), np.maximum(near, far).min(-1)
    truth = np.where(enter < leave, enter, 0)
    np.testing.assert_array_equal(item.depth > 0, truth > 0)
    # At an edge the other side may win. A card rounds corners to 1/256 of a pixel, here 1.7e-4; depth moves by that
    # times its slope.
    share, bound = (0.999, 1e-5) if in_software(item.info["renderer"]) else (0.99, 3e-4)
    assert np.quantile(np.abs(item.depth - truth), share) < bound
    np.testing.assert_allclose(item.depth, truth, atol=5e-4)
    # The side that is entered last is the one that is seen.
    side = np.eye(3)[entries.argmax(-1)] * -np.sign(direction)
    seen = (truth > 0) & (np.abs(item.depth - truth) < 2e-5)
    np.testing.assert_allclose(item.normals[seen].astype(float), side[seen], atol=1e-3)


@pytest.mark.slow
def test_colors_are_the_surfaces_own(ingested: Path) -> None:
    item = objects(ingested)["axes"]
    solid = item.rgba[item.rgba[..., 3] == 255][:, :3].astype(int)
    # Red, green and blue; mixed only where two boxes meet in a pixel.
    pure = (np.sort(solid, axis=1) == [0, 0, 255]).all(axis=1)
    assert pure.mean() > 0.85
    assert set(solid[pure].argmax(axis=1)) == {0, 1, 2}


@pytest.mark.slow
def test_the_number_of_processes_changes_no_byte(hostile: Path, ingested: Path, tmp_path: Path) -> None:
    again = ingest(hostile, tmp_path / "again", Raster(resolution=SIZE, normals=True, processes=2), threads=2)
    assert shard_path(again, 0).read_bytes() == shard_path(ingested, 0).read_bytes()


@pytest.mark.slow
def test_a_crash_and_a_hang_cost_one_object_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    for i, name in enumerate(("a", "die", "hang", "z")):
        (meshes / f"{name}.obj").write_text(cuboid((0, 0, 0), (1, 1, 1 + i)))
    monkeypatch.setattr(Raster, "command", lambda self: [sys.executable, "-c", FAULTY])
    actual = reasons(ingest(meshes, tmp_path / "out", Raster(resolution=16, timeout_s=2.0)))
    assert actual["a"] is actual["z"] is None
    assert "The rasterizer crashed on this object (killed by SIGSEGV)" in str(actual["die"])
    assert "longer than 2 s (data.renderer.timeout_s)" in str(actual["hang"])


@pytest.mark.slow
def test_a_texture_that_does_not_fit_into_memory_costs_one_object(tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    (meshes / "a.obj").write_text(cuboid((0, 0, 0), (1, 1, 2)))
    buffer = io.BytesIO()
    Image.new("RGB", (12_000, 12_000)).save(buffer, "PNG", compress_level=1)
    card(TEXTURED, buffer.getvalue()).save(meshes / "b.glb")
    actual = reasons(ingest(meshes, tmp_path / "out", Raster(resolution=16, memory_mb=400)))
    assert actual["a"] is None
    assert "memory" in str(actual["b"])
    assert "400 MiB" in str(actual["b"])


@pytest.mark.slow
def test_too_many_triangles_are_a_reason_before_they_are_read(tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    # A small file of 20 million triangles: an accessor without a buffer is zeros.
    large = card()
    document = large.document
    document["accessors"].append({"componentType": 5125, "type": "SCALAR", "count": 60_000_000})
    document["meshes"][0]["primitives"][0]["indices"] = len(document["accessors"]) - 1
    large.save(meshes / "large.glb")
    parts = card()
    parts.document["nodes"] = [{"mesh": 0}] * 4
    parts.document["scenes"] = [{"nodes": [0, 1, 2, 3]}]
    parts.save(meshes / "parts.glb")
    (meshes / "box.obj").write_text(cuboid((0, 0, 0), (1, 1, 2)))
    actual = reasons(ingest(meshes, tmp_path / "out", Raster(resolution=16)))
    assert actual["large"] == "the mesh has 20,000,000 triangles, more than data.renderer.triangles 10,000,000"
    assert actual["parts"] is actual["box"] is None
    fewer = reasons(ingest(meshes, tmp_path / "few", Raster(resolution=16, triangles=12)))
    assert fewer["box"] is None, "it has 12"
    assert "20,000,000 triangles" in str(fewer["large"])
    assert str(fewer["parts"]).startswith("the mesh has 16 triangles"), "of four nodes"


def test_no_opengl_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.obj").write_text(cuboid((0, 0, 0), (1, 1, 2)))
    broken = "import sys; sys.modules['moderngl'] = None; from z1g.meshes.raster import worker; worker.main()"
    monkeypatch.setattr(Raster, "command", lambda self: [sys.executable, "-c", broken])
    with pytest.raises(UserError, match=r"OpenGL without a screen .* set data\.renderer: \{kind: blender\}"):
        ingest(tmp_path, tmp_path / "out", Raster(resolution=16))


def test_panoramas_need_blender() -> None:
    with pytest.raises(ValueError, match=r"kind hdri needs data\.renderer: \{kind: blender\}"):
        Raster(lighting=Hdri())
