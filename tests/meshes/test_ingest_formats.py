"""Every file format with the real Blender: the same object must look the same, from the correct side."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.paths import TESTS

from z1g.data.manifest import ObjectEntry
from z1g.data.shards import RenderedObject
from z1g.geometry.camera import CONDITION_VIEW, CameraOptions
from z1g.meshes import executable as blender_process
from z1g.meshes.renderers import Blender
from z1g.sources.meshes import Meshes

pytestmark = pytest.mark.blender
CAMERA = CameraOptions(condition_elevation_deg=(0, 0), train_views=1, validation_views=1, test_views=1)
WRITER = TESTS / "support" / "blender_objects.py"
SIDE_ENDINGS = (".png", ".bin", ".mtl", ".blend1")
TEXTURED = ("obj", "glb", "draco.glb", "gltf", "fbx", "usda", "usdc", "usdz", "zup.usd", "blend")


@pytest.fixture(scope="module")
def written(blender_command, tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder of files written by Blender's exporters, and the render command."""
    folder = tmp_path_factory.mktemp("formats")
    words = [str(WRITER) if word == str(blender_process.SCRIPT) else word for word in blender_command]
    split = [] if len(blender_command) == 2 else ["--"]
    subprocess.run([*words, *split, str(folder)], check=True, timeout=200, capture_output=True)
    return folder, blender_command


@pytest.fixture(scope="module")
def ingested(written) -> dict[str, object]:
    """The outcome of each file by path, all with the same cameras."""
    folder, command = written
    files = sorted(file for file in folder.rglob("box*") if file.suffix not in SIDE_ENDINGS)
    entries = [ObjectEntry(f"object{i}", str(file)) for i, file in enumerate(files)]
    data = Meshes(paths=(str(folder),), renderer=Blender(resolution=32, samples=8, python=command[0]))
    scratch = folder / "scratch"
    scratch.mkdir()
    before = sorted(folder.rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ObjectEntry, "seed", 7)
        outcomes = [ingested.outcome for ingested in data.ingest(entries, CAMERA, scratch, 2)]
    assert sorted(file for file in folder.rglob("*") if scratch not in file.parents) == before  # no new files
    return {file.relative_to(folder).as_posix(): outcome for file, outcome in zip(files, outcomes, strict=True)}


def images(item: object) -> np.ndarray:
    """All views [V,H,W,3] on white."""
    assert isinstance(item, RenderedObject), item
    alpha = item.rgba[..., 3:] / 255
    return item.rgba[..., :3] * alpha + 255 * (1 - alpha)


def named(ingested: dict[str, object], folder: str) -> dict[str, object]:
    return {
        name.removeprefix(f"{folder}/box_"): item for name, item in ingested.items() if name.startswith(f"{folder}/")
    }


def test_a_textured_object_looks_the_same_in_every_format(ingested):
    actual = {name: images(item) for name, item in named(ingested, "textured").items()}
    assert len(actual) == len(TEXTURED)
    expected = actual["obj.obj"]
    for name, views in actual.items():
        assert np.abs(views - expected).mean() < 8, name  # .usd does not keep that the material is not glossy
        # The condition view shows the +z side, which is cyan.
        middle = views[CONDITION_VIEW, 14:18, 14:18].mean((0, 1))
        assert middle[0] < 80 < 150 < middle[1:].min(), name
    extent = [item.info["normalization"] for item in named(ingested, "textured").values()]
    assert {round(value["scale"], 4) for value in extent} == {round(0.5 / np.linalg.norm([1, 1.5, 2]), 4)}


def test_vertex_colors_show_with_and_without_a_material(ingested):
    actual = {name: images(item) for name, item in named(ingested, "colored").items()}
    assert len(actual) == 8
    sharp = [name for name in actual if not name.endswith((".ply", ".obj", ".stl"))]
    for name in sharp:  # one color per face corner
        assert np.abs(actual[name] - actual["blend.blend"]).mean() < 12, name  # one has a material that is not glossy
    # These formats have one color per point, so colors of neighboring sides blend, the same way in both.
    assert np.abs(actual["ply.ply"] - actual["obj.obj"]).mean() < 2
    assert np.ptp(actual["ply.ply"][CONDITION_VIEW, 16, 16]) > 20
    gray = actual["stl.stl"][CONDITION_VIEW, 16, 16]
    assert np.ptp(gray) < 3


def test_alpha_blending_and_masking(ingested):
    half = {name: item.rgba[CONDITION_VIEW, 14:18, 14:18] for name, item in named(ingested, "blend").items()}
    assert len(half) == 5
    for name, patch in half.items():
        # Two walls of a box, each half transparent.
        assert patch[..., 3].mean() == pytest.approx(255 * 0.75, abs=25), name
        assert patch[..., 0].mean() > 200, name
    for name, item in named(ingested, "mask").items():
        # The side facing the condition view is masked out: the darker inside of the far side is visible.
        side = item.rgba[CONDITION_VIEW, 14:18, 14:18]
        assert side[..., 3].min() == 255, name
        assert side[..., 0].mean() < 0.9 * item.rgba[3, 14:18, 14:18, 0].mean(), name


def test_a_missing_texture_is_named(ingested):
    actual = named(ingested, "missing")
    assert len(actual) == 5
    for name, item in actual.items():
        assert "texture missing or unreadable" in item.reason, name
        assert ("palette.png" in item.reason) or name.startswith("usda"), name


def test_one_scene_of_several_and_the_first_frame_of_a_motion(ingested):
    for name, item in named(ingested, "scenes").items():
        assert item.info["n_triangles"] == 12, name
        red, green, _ = images(item)[CONDITION_VIEW, 16, 16]
        assert red > 150 > green, name
    for name, item in named(ingested, "motion").items():
        assert item.info["n_triangles"] == 24, name
        # One box is at 0, the other at x = 3, each 2 wide; in the last frame it is at 9.
        assert item.info["normalization"]["center"] == pytest.approx([1.5, 0, 0], abs=1e-3), name


def test_a_blend_file_runs_no_code_and_adds_only_its_objects(written, ingested):
    folder, _ = written
    assert not (folder / "trap" / "executed").exists()
    trap, plain = ingested["trap/box.blend"], named(ingested, "textured")["blend.blend"]
    assert trap.info["n_triangles"] == 12
    assert np.abs(images(trap) - images(plain)).mean() < 1
