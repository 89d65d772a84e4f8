"""Formats that only Blender reads, drawn by the rasterizer: converted once by the real Blender."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.meshes import CAMERA, cuboid
from support.paths import ROOT, TESTS
from support.raster import rasterizer

from z1g.core.errors import UserError
from z1g.data.manifest import ObjectEntry
from z1g.data.shards import EncodedObject, Rejected
from z1g.geometry.camera import INPUT_VIEWS
from z1g.meshes import conversion, executable
from z1g.meshes.renderers import Raster
from z1g.sources.meshes import Meshes

SIZE = 96
MESH = ROOT / "workflow/objects/barrel/barrel.obj"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(blender_command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an OBJ and the same object in other formats."""
    rasterizer(16)
    folder = tmp_path_factory.mktemp("formats")
    writer = str(TESTS / "support/blender_exports.py")
    words = [writer if word == str(executable.SCRIPT) else word for word in blender_command]
    split = [] if len(blender_command) == 2 else ["--"]
    subprocess.run([*words, *split, str(MESH), str(folder)], check=True, timeout=200, capture_output=True)
    for file in MESH.parent.iterdir():
        shutil.copy(file, folder)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ObjectEntry, "seed", 7)
    return tmp_path / "cache/z1g/converted"


@pytest.fixture
def no_blender(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[str]:
        raise UserError("none")

    monkeypatch.setattr(conversion, "find_blender", refuse)


def ingested(folder: Path, scratch: Path) -> dict[str, EncodedObject | Rejected]:
    """The outcome of each mesh by its file's name, all with the same cameras."""
    scratch.mkdir()
    data = Meshes(paths=(str(folder),), renderer=Raster(resolution=SIZE))
    entries = data.list_objects()
    outcomes = [each.outcome for each in data.ingest(entries, CAMERA, scratch, 2)]
    return {Path(entry.source).name: each for entry, each in zip(entries, outcomes, strict=True)}  # type: ignore[misc]


def pixels(item: object) -> np.ndarray:
    assert isinstance(item, EncodedObject), item
    return np.stack([item.view(view) for view in range(len(item.c2w))]).astype(float)


@pytest.mark.blender
def test_an_object_looks_the_same_in_every_format(
    written: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ingested(written, tmp_path / "first")
    assert len(found) == 5, sorted(found)
    native = found.pop("barrel.obj")
    truth, covered = pixels(native), pixels(native)[..., 3] > 127
    for name, item in found.items():
        image = pixels(item)
        overlap = (covered & (image[..., 3] > 127)).sum() / (covered | (image[..., 3] > 127)).sum()
        assert overlap > 0.995, name
        inside = (truth[..., 3] == 255) & (image[..., 3] == 255)
        error = np.sqrt(np.square((truth - image)[inside][:, :3]).mean())
        assert 20 * np.log10(255 / error) > 35, name
        depth = np.abs(item.depth - native.depth)[(item.depth > 0) & (native.depth > 0)]
        assert np.median(depth) < 1e-4, name
        assert "raster" in item.info["renderer"]
        assert "mesh by Blender" in item.info["renderer"]
        assert item.info["normalization"]["up_axis"] == ("z" if name.endswith(".blend") else "y")
        assert len(INPUT_VIEWS) == len(item.depth)
    # The second time, no Blender is needed.
    monkeypatch.setattr(conversion, "find_blender", lambda *_: pytest.fail("converted again"))
    again = ingested(written, tmp_path / "second")
    assert all(again[name].images == item.images for name, item in found.items())


@pytest.mark.blender
def test_what_does_not_agree_with_its_record_is_converted_again(written: Path, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "meshes"
    folder.mkdir()
    (folder / "textures").mkdir()
    for file in [*written.glob("two.usdc"), *written.glob("textures/*")]:
        shutil.copy(file, folder / file.relative_to(written))
    first = ingested(folder, tmp_path / "a")["two.usdc"]
    (record,), (made,) = cache.glob("*.json"), cache.glob("*.glb")
    reads = json.loads(record.read_text())["reads"]
    assert {Path(name).name for name in reads} == {"barrelRing.jpg", "barrelS_D.jpg"}
    good = made.read_bytes()
    made.write_bytes(good[:-100])
    assert ingested(folder, tmp_path / "b")["two.usdc"].images == first.images
    assert made.read_bytes() == good
    record.write_text(record.read_text().replace('"reads"', '"read"'))
    assert ingested(folder, tmp_path / "c")["two.usdc"].images == first.images
    # Other textures of the same mesh file.
    for name in reads:
        Image.new("RGB", (64, 64), (255, 0, 0)).save(folder / name)
    red = pixels(ingested(folder, tmp_path / "d")["two.usdc"])
    solid = red[red[..., 3] == 255]
    assert (solid[:, 0] > 200).all()
    assert (solid[:, 1] < 30).all()


def test_without_blender_such_meshes_are_set_aside_with_what_to_do(
    cache: Path, no_blender: None, tmp_path: Path
) -> None:
    rasterizer(16)
    folder = tmp_path / "meshes"
    folder.mkdir()
    (folder / "a.obj").write_text(cuboid((0, 0, 0), (1, 1, 2)))
    for name in ("b.fbx", "c.usd", "d.blend", "e.dae"):
        (folder / name).write_text(f"something {name}")
    found = ingested(folder, tmp_path / "scratch")
    assert isinstance(found.pop("a.obj"), EncodedObject)
    for name, outcome in found.items():
        assert isinstance(outcome, Rejected)
        assert outcome.reason.startswith(f"{Path(name).suffix} files are converted by Blender"), name
        assert "make blender" in outcome.reason


@pytest.mark.blender
def test_damaged_files_have_blenders_reason(
    blender_command: list[str], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rasterizer(16)
    monkeypatch.setenv("Z1G_BLENDER", blender_command[0])
    folder = tmp_path / "meshes"
    folder.mkdir()
    for name in ("b.fbx", "c.usd", "d.blend", "e.dae"):
        (folder / name).write_text(f"something {name}")
    found = ingested(folder, tmp_path / "scratch")
    assert len(found) == 4
    for outcome in found.values():
        assert isinstance(outcome, Rejected)
        assert "Blender" in outcome.reason or "no faces" in outcome.reason
    assert not list(cache.glob("*"))
