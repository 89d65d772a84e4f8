"""The original's renders: poses by its own formula, malicious pickles, incomplete folders."""

import math
import os
import pickle
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.builders import ball

from z1g.config.resolve import Ablation
from z1g.config.tree import Experiment
from z1g.core.errors import UserError
from z1g.core.files import read_jsonl
from z1g.data.scenes import as_scene
from z1g.data.shards import BrokenObject, Rejected, RenderedObject
from z1g.geometry.camera import CameraOptions
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.sources._original_files import read_angles
from z1g.sources.original import Original
from z1g.stages import fit, ingest

CAMERA = CameraOptions(train_views=2, validation_views=1, test_views=1)
ANGLES = {"elevation": 30.0, "azimuth": 75.0, "radius": 1.5}


def write_scene(folder: Path, n_views: int = 12) -> list[dict[str, float]]:
    folder.mkdir(parents=True)
    images = ball(folder.name, CAMERA, 16).rgba
    draw = np.random.default_rng(0)
    cameras = []
    for view in range(n_views):
        angles = {"elevation": draw.uniform(-30, 60), "azimuth": draw.uniform(0, 360), "radius": draw.uniform(1.2, 2)}
        Image.fromarray(images[view % len(images)], "RGBA").save(folder / f"{view:03d}.png")
        np.save(folder / f"{view:03d}.npy", angles, allow_pickle=True)  # type: ignore[arg-type]  # as the original does
        cameras.append(angles)
    return cameras


def only(source: Original, camera: CameraOptions = CAMERA) -> RenderedObject | Rejected:
    (ingested,) = source.ingest(source.list_objects(), camera, Path(), 1)
    return ingested.outcome


def test_scenes_are_read_from_their_layout(tmp_path: Path) -> None:
    cameras = write_scene(tmp_path / "scene a")
    (tmp_path / "notes").mkdir()
    source = Original(renders=str(tmp_path))
    assert [entry.id for entry in source.list_objects()] == ["scene_a"]
    item = only(source)
    assert isinstance(item, RenderedObject)
    assert item.rgba.shape == (CAMERA.n_views, 16, 16, 4)
    assert item.depth is None
    for view, angles in enumerate(cameras[: CAMERA.n_views]):
        # The original: orbit_camera(-elevation, azimuth, radius), whose camera of elevation e is at y = -r sin e.
        e, a, r = -math.radians(angles["elevation"]), math.radians(angles["azimuth"]), angles["radius"]
        position = [r * math.cos(e) * math.sin(a), -r * math.sin(e), r * math.cos(e) * math.cos(a)]
        np.testing.assert_allclose(item.c2w[view, :3, 3], position, atol=1e-12)
        np.testing.assert_allclose(item.c2w[view, :3, 2], -np.array(position) / r, atol=1e-12)
        assert item.c2w[view, 1, 1] < 0, "the camera's y points down"
    np.testing.assert_array_equal(item.rgba[3], np.asarray(Image.open(tmp_path / "scene a" / "003.png")))
    assert as_scene(item, CAMERA.radius).depth is None


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("number", [float, np.float64, np.float32, int, lambda x: np.array([x])])
def test_dicts_of_all_numpy_versions_and_pickle_protocols(tmp_path: Path, protocol: int, number: Any) -> None:
    value = np.empty((), object)
    value[()] = {name: number(x) for name, x in ANGLES.items()}
    body = pickle.dumps(value, protocol=protocol)
    (tmp_path / "a.npy").write_bytes(npy(body))
    expected = {name: np.asarray(number(x)).item() for name, x in ANGLES.items()} if number is int else ANGLES
    assert read_angles(tmp_path / "a.npy") == expected
    # Files written before NumPy 2 have other module names.
    if protocol < 4:  # later protocols prefix names with their length
        (tmp_path / "b.npy").write_bytes(npy(body.replace(b"numpy._core", b"numpy.core")))
        assert read_angles(tmp_path / "b.npy") == expected


def npy(body: bytes) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickles_are_rejected_before_any_code_runs(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "ran"
    for attack in (
        Call(os.system, f"touch {mark}"),
        Call(eval, f"open({str(mark)!r}, 'w')"),
        Call(exec, f"open({str(mark)!r}, 'w')"),
        Call(Path.touch, mark),
        Call(__import__, "antigravity"),
        Call(np.ndarray, (10**7,)),
        Call(np.memmap, str(mark), "u1", "w+", 0, (8,)),
    ):
        for value in (attack, {**ANGLES, "radius": attack}, [attack]):
            file = tmp_path / "a.npy"
            file.write_bytes(npy(pickle.dumps(value, protocol=protocol)))
            with pytest.raises(BrokenObject, match=r"a\.npy is not a"):
                read_angles(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a camera"),
        (b"\x93NUMPY\x01\x00", "is not a camera"),
        (npy(b"\x80\x05garbage"), "is not a camera"),
        (npy(pickle.dumps([1, 2, 3])), "is not a dict"),
        (npy(pickle.dumps({"elevation": 1.0})), "is not a dict"),
        (npy(pickle.dumps({**ANGLES, "radius": "far"})), "could not convert"),
        (npy(pickle.dumps({**ANGLES, "azimuth": math.nan})), "is not a camera"),
        (npy(pickle.dumps({**ANGLES, "radius": 0.0})), "is not a camera"),
        (b"x" * 70_000, "larger than"),
    ],
)
def test_files_that_are_not_cameras(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "a.npy"
    file.write_bytes(content)
    with pytest.raises(BrokenObject, match=message):
        read_angles(file)
    file.unlink()
    with pytest.raises(BrokenObject, match="cannot be read"):
        read_angles(file)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("few", "has 9 views, but the configuration has 11"),
        ("npy", r"003\.npy cannot be read"),
        ("cut", r"003\.png is not a complete image"),
        ("flip", r"003\.png is not a complete image: broken PNG file"),
        ("rgb", r"003\.png has mode RGB, not RGBA"),
        ("size", "different sizes"),
    ],
)
def test_incomplete_scenes_are_rejected_with_the_reason(tmp_path: Path, damage: str, reason: str) -> None:
    folder = tmp_path / "scene"
    write_scene(folder, 9 if damage == "few" else 12)
    if damage == "npy":
        (folder / "003.npy").unlink()
    elif damage == "cut":
        (folder / "003.png").write_bytes((folder / "003.png").read_bytes()[:60])
    elif damage == "flip":
        content = bytearray((folder / "003.png").read_bytes())
        content[content.index(b"IDAT") + 10] ^= 1
        (folder / "003.png").write_bytes(content)
    elif damage in ("rgb", "size"):
        Image.new("RGB" if damage == "rgb" else "RGBA", (8, 8)).save(folder / "003.png")
    result = only(Original(renders=str(tmp_path)))
    assert isinstance(result, Rejected)
    assert re.search(reason, result.reason), result.reason


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size; its content is one row of zeros."""
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1 + 4 * 64))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def text_bomb() -> bytes:
    """A PNG with a compressed comment of 200 MB."""
    comment = b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    chunk = struct.pack(">I", len(comment[1])) + b"".join(comment) + struct.pack(">I", zlib.crc32(b"".join(comment)))
    plain = png_of(16, 16)
    return plain[:33] + chunk + plain[33:]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png_of(60_000, 60_000), "is too large"),
        (png_of(12_000, 12_000), "12000x12000"),
        (text_bomb(), "not a complete image"),
    ],
    ids=["size", "size below Pillow's limit", "comment"],
)
def test_a_decompression_bomb_does_not_take_other_scenes_along(tmp_path: Path, content: bytes, reason: str) -> None:
    for name in ("bomb", "healthy"):
        write_scene(tmp_path / name)
    (tmp_path / "bomb/003.png").write_bytes(content)
    source = Original(renders=str(tmp_path))
    bomb, healthy = (ingested.outcome for ingested in source.ingest(source.list_objects(), CAMERA, Path(), 1))
    assert isinstance(bomb, Rejected)
    assert "003.png" in bomb.reason
    assert reason in bomb.reason
    assert isinstance(healthy, RenderedObject)


@pytest.mark.parametrize("name", ["003.png", "003.npy"])
def test_fifos_and_devices_are_not_read(tmp_path: Path, name: str) -> None:
    for scene, place in (("fifo", os.mkfifo), ("zero", lambda path: path.symlink_to("/dev/zero"))):
        write_scene(tmp_path / scene)
        (tmp_path / scene / name).unlink()
        place(tmp_path / scene / name)
    source = Original(renders=str(tmp_path))
    for ingested in source.ingest(source.list_objects(), CAMERA, Path(), 1):
        assert isinstance(ingested.outcome, Rejected)
        assert "not a regular file" in ingested.outcome.reason
        assert name in ingested.outcome.reason


def test_errors_of_folders_without_scenes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        Original(renders=str(tmp_path / "absent")).list_objects()
    with pytest.raises(UserError, match=r"000\.png"):
        Original(renders=str(tmp_path)).list_objects()


def test_ingest_and_fit_take_such_scenes(tmp_path: Path) -> None:
    camera = {"train_views": 6, "validation_views": 2, "test_views": 2}
    orbit = CameraOptions(**camera)
    for name in ("one", "two"):
        folder = tmp_path / "renders" / name
        folder.mkdir(parents=True)
        # The ball looks the same from all directions, so its images fit any camera at this distance.
        for view, rgba in enumerate(ball(name, orbit, 32).rgba):
            Image.fromarray(rgba, "RGBA").save(folder / f"{view:03d}.png")
            elevation = [20.0, 30.0, -20.0, 30.0, -20.0, 30.0, -20.0][view] if view < 7 else 10.0 * (view % 4)
            azimuth = 0.0 if view == 0 else 30.0 + 60 * (view - 1) if view < 7 else 47.0 * view
            np.save(folder / f"{view:03d}.npy", {"elevation": elevation, "azimuth": azimuth, "radius": 1.5})  # type: ignore[arg-type]
    (tmp_path / "renders" / "two" / "004.npy").write_bytes(npy(pickle.dumps(Call(os.system, "false"))))
    config = Experiment.model_validate(
        {
            "data": {"kind": "original", "renders": str(tmp_path / "renders")},
            "camera": camera,
            "splat": {"size": 12},
            "fit": {"start": {"kind": "visual_hull"}, "steps": 3, "views_per_step": 2},
        }
    )
    planned = Plan([Ablation("original", "", "full", {}, config)], tmp_path / "results")
    planned.write()
    stages = planned.ablations["original"].stages
    for stage, run in (("ingest", ingest.run), ("fit", fit.run)):
        run(StageFolder.open(planned.folder(*stages[stage].key)), chunk=0, threads=1)
    rows = read_jsonl(planned.folder(*stages["ingest"].key) / "chunk-00000.jsonl")
    assert [(row["id"], row["status"]) for row in rows] == [("one", "ok"), ("two", "quarantined")]
    assert "004.npy is not a camera: it refers to" in rows[1]["reason"]
    (row,) = read_jsonl(planned.folder(*stages["fit"].key) / "chunk-00000.jsonl")
    assert row["psnr"] > 15
