"""Ingest with the real Blender: images, depth, cameras, determinism, quarantine."""

import json
import shutil
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from support.meshes import CAMERA, SIZE, axes, cuboid, ingest_folder, options
from support.paths import ROOT

from z1g.core.errors import UserError
from z1g.core.files import read_jsonl
from z1g.data.manifest import int_hash
from z1g.data.shards import Rejected, read_objects, shard_path, table_path
from z1g.geometry.camera import INPUT_VIEWS, Cameras, pixel_rays
from z1g.meshes.lighting.three_point import ThreePoint
from z1g.sources.meshes import Meshes
from z1g.stages.ingest import run

pytestmark = pytest.mark.blender
LITTLE_MB = 480
"""Enough for Blender and a small mesh."""


def word(name: str) -> str:
    """An id without the content hash."""
    return name.rpartition("-")[0]


@pytest.fixture(scope="module")
def ingested(blender, tmp_path_factory):
    """The folder of an ingest of two objects, a box and three axes, and a function that ingests again."""

    def ingest(name: str, threads: int, **values) -> Path:
        folder = tmp_path_factory.mktemp(name)
        data = Meshes(paths=(str(meshes),), renderer=options(blender, normals=True, **values))
        run(ingest_folder(folder, data), 0, threads)
        return folder

    meshes = tmp_path_factory.mktemp("meshes")
    axes(meshes)
    (meshes / "box.obj").write_text(cuboid((2, 2, 2), (4, 4, 4)))
    return ingest("first", 2), ingest


def test_shard_and_table(ingested):
    folder, _ = ingested
    chunk = [f"chunk-00000.{ending}" for ending in ("jsonl", "png", "tar")]
    assert sorted(file.name for file in folder.iterdir()) == [*chunk, "manifest.jsonl", "stage.json"]
    objects = {word(item.id): item for item in read_objects(shard_path(folder, 0))}
    assert list(objects) == ["axes", "box"]
    rows = read_jsonl(table_path(folder, 0))
    assert [(word(row["id"]), row["status"], row["reason"], row["n_views"]) for row in rows] == [
        ("axes", "ok", None, CAMERA.n_views),
        ("box", "ok", None, CAMERA.n_views),
    ]
    assert all(row["seconds"] > 0 for row in rows)
    box = objects["box"]
    assert box.rgba.shape == (CAMERA.n_views, SIZE, SIZE, 4)
    assert box.rgba.dtype == np.uint8
    np.testing.assert_array_equal(box.c2w, CAMERA.poses(int_hash(box.info["content"])))
    assert box.info["n_triangles"] == 12
    assert box.info["normalization"]["center"] == pytest.approx([3, 3, 3])
    assert box.info["normalization"]["scale"] == pytest.approx(0.5 / 3**0.5)
    assert box.info["normalization"]["up_axis"] == "y"
    assert box.info["licenses"] == ["Licence.txt"]
    assert len(box.info["content"]) == 64
    assert box.info["source"].endswith("box.obj")


def test_same_bytes_again_whatever_the_processes_and_threads(ingested):
    first, ingest = ingested  # two processes with one thread each
    expected = shard_path(first, 0).read_bytes()
    for name, threads, values in (
        ("one thread", 1, {}),
        ("one process", 2, {"processes": 1}),
        ("restarts", 2, {"processes": 1, "restart_after": 1}),
    ):
        assert shard_path(ingest(name, threads, **values), 0).read_bytes() == expected, name


def test_the_table_says_where_the_time_goes(ingested):
    for row in read_jsonl(table_path(ingested[0], 0)):
        assert list(row["seconds_of"]) == ["import", "render", "write", "depth"]
        assert min(row["seconds_of"].values()) > 0


def test_depth_is_exact_and_the_views_agree(ingested):
    folder, _ = ingested
    box = next(item for item in read_objects(shard_path(folder, 0)) if word(item.id) == "box")
    c2w = torch.from_numpy(box.c2w[None, list(INPUT_VIEWS)])
    cameras = Cameras(c2w, box.fov_y_deg, SIZE, SIZE)
    origin, direction = (x[0].permute(0, 2, 3, 1).numpy() for x in pixel_rays(cameras))
    half = 0.5 / np.sqrt(3)
    near, far = (-half - origin) / direction, (half - origin) / direction
    enter, leave = np.minimum(near, far).max(-1), np.maximum(near, far).min(-1)
    truth = np.where(enter < leave, enter, 0)
    np.testing.assert_array_equal(box.depth > 0, truth > 0)
    np.testing.assert_allclose(box.depth, truth, atol=1e-5)

    # Independent of the shape: a point visible in view 1 is never in front of the surface in another view.
    seen = (origin[0] + direction[0] * box.depth[0, ..., None])[box.depth[0] > 0]
    assert np.linalg.norm(seen, axis=1).max() <= 0.5 + 1e-5
    w2c = cameras.world_to_camera()[0].numpy()
    agree = 0
    for view in range(1, 6):
        local = seen @ w2c[view, :3, :3].T + w2c[view, :3, 3]
        column, row = (local[:, :2] / local[:, 2:] * cameras.focal + SIZE / 2).astype(int).T
        surface = box.depth[view, row, column]
        # Depth range of one pixel on a slanted face.
        assert (local[:, 2] - surface)[surface > 0].min() > -0.15
        agree += (abs(local[:, 2] - surface) < 0.03).sum()
    assert agree > len(seen)  # every point is visible from more than one other view on average


def test_images_show_what_the_cameras_say(ingested):
    """Each box's color appears where its center projects, in every view: axes, handedness, fov, normalization."""
    folder, _ = ingested
    item = next(item for item in read_objects(shard_path(folder, 0)) if word(item.id) == "axes")
    normalization = item.info["normalization"]
    cameras = Cameras(torch.from_numpy(item.c2w[None]), item.fov_y_deg, SIZE, SIZE)
    w2c = cameras.world_to_camera()[0].numpy()
    checked = 0
    for i in range(3):
        middle = (10 + 2 * np.eye(3)[i] - np.array(normalization["center"])) * normalization["scale"]
        rgba = item.rgba.astype(float)
        others = np.delete(rgba[..., :3], i, axis=-1).max(-1)
        mine = (rgba[..., i] > 150) & (others < 100) & (rgba[..., 3] > 200)
        for view in range(CAMERA.n_views):
            if mine[view].sum() < 6:
                continue  # behind another box
            local = w2c[view, :3, :3] @ middle + w2c[view, :3, 3]
            expected = local[:2] / local[2] * cameras.focal + SIZE / 2
            rows, columns = np.nonzero(mine[view])
            assert np.hypot(*(np.array([columns.mean(), rows.mean()]) + 0.5 - expected)) < 2
            checked += 1
    assert checked > 2 * CAMERA.n_views
    assert item.rgba[0, :4].max() == 0  # a corner of the image is transparent


def write_bad_meshes(folder: Path) -> dict[str, str]:
    """Write meshes that cannot be used; return the expected words of each reason."""
    crate = ROOT / "workflow/objects/crate"
    (folder / "a_nan.obj").write_text(cuboid((0, 0, 0), (1, 1, 1)).replace("v 0 0 0\n", "v nan 0 0\n"))
    triangle = struct.pack("<12fH", 0, 0, 1, 0, 0, 0, 1, 0, 0, float("nan"), 1, 1, 0)
    (folder / "b_nan_binary.stl").write_bytes(bytes(80) + struct.pack("<I", 1) + triangle)
    (folder / "c_truncated.obj").write_bytes((crate / "crate.obj").read_bytes()[:900])
    shutil.copy(crate / "crate.mtl", folder)
    (folder / "d_empty.obj").touch()
    (folder / "e_no_texture.obj").write_bytes((crate / "crate.obj").read_bytes())
    (folder / "f_flat.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 3\n")
    (folder / "g_point.obj").write_text("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n")
    (folder / "h_garbage.glb").write_bytes(b"glTF no more" * 40)
    (folder / "i_glass.mtl").write_text("newmtl glass\nKd 1 1 1\nd 0\n")
    (folder / "i_glass.obj").write_text("mtllib i_glass.mtl\nusemtl glass\n" + cuboid((0, 0, 0), (1, 1, 1)))
    return {
        "a_nan": "not finite",
        "b_nan_binary": "not finite",
        "c_truncated": "no faces",
        "d_empty": "0 bytes",
        "e_no_texture": "texture missing or unreadable: crate.jpg",
        "f_flat": "flat",
        "g_point": "single point",
        "h_garbage": "Blender cannot read the file",
        "i_glass": "transparent",
    }


def test_bad_meshes_are_quarantined_with_a_reason(blender, tmp_path, monkeypatch):
    meshes, scratch = tmp_path / "meshes", tmp_path / "scratch"
    meshes.mkdir()
    scratch.mkdir()
    expected = write_bad_meshes(meshes)
    (meshes / "z_good.obj").write_text(cuboid((0, 0, 0), (1, 2, 3)))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    folder = tmp_path / "out"
    data = Meshes(paths=(str(meshes),), renderer=options(blender, lighting=ThreePoint()))
    folder.mkdir()
    stage = ingest_folder(folder, data)
    run(stage, 0, 1)
    rows = {word(row["id"]): row for row in read_jsonl(table_path(folder, 0))}
    assert list(rows) == [*expected, "z_good"]
    for name, words in expected.items():
        assert rows[name]["status"] == "quarantined"
        assert words in rows[name]["reason"]
        assert rows[name]["n_views"] == 0
        assert "Traceback" not in rows[name]["reason"]
    assert rows["z_good"]["status"] == "ok"
    assert [word(item.id) for item in read_objects(shard_path(folder, 0))] == ["z_good"]
    assert not list(scratch.iterdir())
    with pytest.raises(UserError, match="no chunk 1"):
        run(stage, 1, 1)


def test_a_time_limit_too_short_for_blender_rejects(blender, tmp_path):
    (tmp_path / "box.obj").write_text(cuboid((0, 0, 0), (1, 1, 1)))
    data = Meshes(paths=(str(tmp_path),), renderer=options(blender, timeout_s=0.001))
    (ingested,) = data.ingest(data.list_objects(), CAMERA, tmp_path, 1)
    assert isinstance(ingested.outcome, Rejected)
    assert json.dumps(ingested.outcome.reason)


def test_a_mesh_larger_than_the_memory_limit_ends_blender_and_not_the_machine(blender, tmp_path):
    vertices = "".join(f"v {i % 101} {i % 103} {i % 107}\n" for i in range(500_000))
    faces = "".join(f"f {i} {i + 1} {i + 2}\n" for i in range(1, 499_000))
    (tmp_path / "monster.obj").write_text(vertices + faces)
    (tmp_path / "small.obj").write_text(cuboid((0, 0, 0), (1, 1, 1)))
    data = Meshes(paths=(str(tmp_path),), renderer=options(blender, memory_mb=LITTLE_MB, processes=1))
    monster, small = (ingested.outcome for ingested in data.ingest(data.list_objects(), CAMERA, tmp_path, 1))
    assert "memory" in monster.reason
    assert f"{LITTLE_MB} MiB (data.renderer.memory_mb)" in monster.reason
    assert not isinstance(small, Rejected)


def test_a_gpu_that_is_not_there_is_an_error_and_no_cpu_takes_its_place(blender, tmp_path):
    if list(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dri").exists():
        pytest.skip("this machine may have a GPU that Cycles can use")
    (tmp_path / "box.obj").write_text(cuboid((0, 0, 0), (1, 1, 1)))
    data = Meshes(paths=(str(tmp_path),), renderer=options(blender, device="gpu"))
    with pytest.raises(UserError, match="finds no GPU here"):
        list(data.ingest(data.list_objects(), CAMERA, tmp_path, 1))
