"""Public evaluation sets on made-up folders of the layouts that their authors describe."""

import csv
import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from support.meshes import cuboid

from z1g.core.errors import UserError
from z1g.core.needs import Missing
from z1g.data.shards import RenderedObject
from z1g.geometry.camera import CameraOptions
from z1g.meshes import executable
from z1g.meshes.renderers import Blender, Raster
from z1g.meshes.surface import surface_triangles
from z1g.sources.evaluation_set import EvaluationSet

CAMERA = CameraOptions(train_views=1, validation_views=1, test_views=1)


def obj(path: Path, size: float, material: str | None = None) -> None:
    """A box with texture coordinates, and the material library beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = cuboid((0.0, 0.0, 0.0), (size, 1.0, 0.5))
    if material is not None:
        faces = text.replace("f ", "vt 0.5 0.5\nf ", 1).splitlines()
        lines = [" ".join(w if w == "f" else f"{w}/1" for w in x.split()) if x.startswith("f ") else x for x in faces]
        text = f"mtllib {material}.mtl\nusemtl m\n" + "\n".join(lines) + "\n"
    path.write_text(text)


def gso(root: Path) -> None:
    for i, name in enumerate(("Android_Lego", "BIRD_RATTLE")):
        obj(root / name / "meshes" / "model.obj", 1 + i, "model")
        (root / name / "meshes" / "model.mtl").write_text("newmtl m\nmap_Kd texture.png\n")
        (root / name / "materials" / "textures").mkdir(parents=True)
        Image.new("RGB", (4, 4), (200, 30 * i, 0)).save(root / name / "materials" / "textures" / "texture.png")
        (root / name / "model.config").write_text("<model/>")
        (root / name / "thumbnails").mkdir()


def toys4k(root: Path) -> None:
    for i, (category, number) in enumerate((("airplane", "010"), ("airplane", "011"), ("cat", "001"))):
        obj(root / category / f"{category}_{number}" / "mesh.obj", 1 + i)
        (root / category / f"{category}_{number}" / f"{category}_{number}_attribution.txt").write_text("CC BY")


def omniobject3d(root: Path) -> None:
    for i, (category, name) in enumerate((("anise", "anise_001"), ("ball", "ball_002"))):
        folder = root / "raw_scans" / category / name / "Scan"
        obj(folder / "Scan.obj", 1 + i, "Scan")
        (folder / "Scan.mtl").write_text("newmtl m\nmap_Kd Scan.jpg\n")
        Image.new("RGB", (4, 4), (0, 100, 50 * i)).save(folder / "Scan.jpg")
    (root / "point_clouds" / "ply_files" / "1024").mkdir(parents=True)


def objaverse_lvis(root: Path) -> None:
    uids = ("8476c4170df24cf5bbe6967222d1a42d", "a" * 32, "b" * 32)
    for i, uid in enumerate(uids):
        file = root / "glbs" / f"000-{i:03d}" / f"{uid}.glb"
        file.parent.mkdir(parents=True)
        trimesh.creation.box(extents=(1 + i, 1, 0.5)).export(file)
    annotations = {"banana": [uids[0], "c" * 32], "chair": [uids[1]]}
    (root / "lvis-annotations.json.gz").write_bytes(gzip.compress(json.dumps(annotations).encode()))


SETS: dict[str, tuple[Callable[[Path], None], dict[str, str]]] = {
    "gso": (gso, {"Android_Lego": "", "BIRD_RATTLE": ""}),
    "toys4k": (toys4k, {"airplane_010": "airplane", "airplane_011": "airplane", "cat_001": "cat"}),
    "omniobject3d": (omniobject3d, {"anise_001": "anise", "ball_002": "ball"}),
    "objaverse_lvis": (objaverse_lvis, {"8476c4170df24cf5bbe6967222d1a42d": "banana", "a" * 32: "chair"}),
}


def source(name: str, root: Path, **more: object) -> EvaluationSet:
    return EvaluationSet.model_validate({"collection": name, "root": str(root), **more})


@pytest.mark.parametrize("name", SETS)
def test_objects_are_found_named_and_known_by_content(tmp_path: Path, name: str) -> None:
    make, expected = SETS[name]
    make(tmp_path)
    entries = source(name, tmp_path).list_objects()
    assert {entry.name: entry.category for entry in entries} == expected
    assert {entry.origin for entry in entries} == {name}
    assert len({entry.content for entry in entries}) == len(expected)
    assert all(len(entry.content) == 64 for entry in entries)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "lvis-annotations.json.gz").write_bytes(gzip.compress(b"{}"))
    with pytest.raises(UserError, match=f"is no folder of {name}: expected"):
        source(name, tmp_path / "empty").list_objects()


def test_the_texture_of_a_scanned_object_counts_and_is_drawn(tmp_path: Path) -> None:
    """Its material names `texture.png`, which is in another folder of the Gazebo model."""
    gso(tmp_path / "set")
    options = source("gso", tmp_path / "set", renderer=Raster(resolution=16, samples=1))
    entries = options.list_objects()
    (tmp_path / "scratch").mkdir()
    for entry, made in zip(entries, options.ingest(entries, CAMERA, tmp_path / "scratch", 1), strict=True):
        image = np.asarray(made.outcome.view(0))  # type: ignore[union-attr]
        red = 30 if entry.name == "BIRD_RATTLE" else 0
        inside = image[image[..., 3] == 255]
        np.testing.assert_allclose(np.median(inside[:, :3], axis=0), [200, red, 0], atol=3)
    before = {entry.name: entry.content for entry in entries}
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "set/BIRD_RATTLE/materials/textures/texture.png")
    after = {entry.name: entry.content for entry in options.list_objects()}
    assert [name for name in before if before[name] != after[name]] == ["BIRD_RATTLE"]


def test_a_list_of_contents_fixes_the_objects(tmp_path: Path) -> None:
    toys4k(tmp_path / "set")
    entries = source("toys4k", tmp_path / "set").list_objects()
    with (tmp_path / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "content"))
        rows.writerows((entry.source, entry.content) for entry in entries if entry.category == "airplane")
    fixed = source("toys4k", tmp_path / "set", objects=str(tmp_path / "list.csv"))
    assert {entry.name for entry in fixed.list_objects()} == {"airplane_010", "airplane_011"}
    moved = tmp_path / "set" / "airplane" / "airplane_010" / "mesh.obj"
    (tmp_path / "set" / "cat" / "cat_002").mkdir()
    moved.rename(tmp_path / "set" / "cat" / "cat_002" / "mesh.obj")
    assert {entry.name for entry in fixed.list_objects()} == {"cat_002", "airplane_011"}, "known by content, not place"
    obj(tmp_path / "set" / "airplane" / "airplane_011" / "mesh.obj", 9)
    with pytest.raises(
        UserError, match=r"1 of 2 objects are not in the folder, or their files have changed: .*airplane_011"
    ):
        fixed.list_objects()


def tower(root: Path, name: str) -> None:
    """A set with a box of 1 x 1 x 4: its image is upright only if its third axis is up."""
    place = {"gso": "tower/meshes/model.obj", "toys4k": "tower/tower_001/mesh.obj"}
    path = root / place.get(name, "raw_scans/tower/tower_001/Scan/Scan.obj")
    path.parent.mkdir(parents=True)
    path.write_text(cuboid((0.0, 0.0, 0.0), (1.0, 1.0, 4.0)))


def height_and_width(options: EvaluationSet, scratch: Path) -> tuple[int, int, Any]:
    """Of the silhouette of the only object, seen level, in pixels."""
    (entry,) = options.list_objects()
    scratch.mkdir()
    camera = CAMERA.model_copy(update={"condition_elevation_deg": (0.0, 0.0)})
    (made,) = options.ingest([entry], camera, scratch, 1)
    image = made.outcome.rgba[0] if isinstance(made.outcome, RenderedObject) else made.outcome.view(0)
    alpha = np.asarray(image)[..., 3] > 127
    return int(alpha.any(axis=1).sum()), int(alpha.any(axis=0).sum()), made.outcome


@pytest.mark.parametrize(
    ("name", "up_axis", "tall"),
    [
        ("toys4k", "file", False),
        ("toys4k", "y", False),
        ("toys4k", "z", True),
        ("toys4k", "set", False),
        ("gso", "set", True),
        ("gso", "file", False),
        ("omniobject3d", "set", False),
    ],
)
def test_an_up_axis_stands_objects_up(tmp_path: Path, name: str, up_axis: str, tall: bool) -> None:
    tower(tmp_path / "set", name)
    options = source(name, tmp_path / "set", up_axis=up_axis, renderer=Raster(resolution=32, samples=1))
    height, width, outcome = height_and_width(options, tmp_path / "scratch")
    assert outcome.info["normalization"]["up_axis"] == ("z" if tall else "y")
    assert (height > 2 * width) is tall


@pytest.mark.blender
@pytest.mark.parametrize("kind", ["raster", "blender"])
def test_blender_stands_scanned_objects_up_too(tmp_path: Path, blender: str, kind: str) -> None:
    """Also where their mesh is measured, which is read without Blender."""
    tower(tmp_path / "set", "gso")
    renderer = (
        Raster(resolution=32, samples=1) if kind == "raster" else Blender(resolution=32, samples=1, python=blender)
    )
    options = source("gso", tmp_path / "set", renderer=renderer)
    height, width, outcome = height_and_width(options, tmp_path / "scratch")
    assert height > 2 * width
    (entry,) = options.list_objects()
    corners = surface_triangles(outcome, entry, options.limits).reshape(-1, 3)
    np.testing.assert_allclose(np.ptp(corners, axis=0), np.array([1, 4, 1]) / np.sqrt(18), atol=1e-6)


WRITER = """
import sys
from pathlib import Path

import bpy

path = Path(sys.argv[-1])
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.mesh.primitive_cube_add(size=1)
tower = bpy.context.object
tower.scale = (1, 1, 4)
material = bpy.data.materials.new("paint")
material.use_nodes = True
material.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = (0, 0, 1, 1)
tower.data.materials.append(material)
bpy.ops.object.camera_add()
bpy.ops.object.light_add(type="AREA", location=(0, 0, 9))
bpy.ops.wm.save_as_mainfile(filepath=str(path))
"""
"""Writes a blue box of 1 x 1 x 4 with the camera and the light that files of Toys4K have. Runs inside Blender."""


@pytest.mark.blender
@pytest.mark.parametrize("kind", ["raster", "blender"])
def test_toys_in_blend_files_are_upright_and_colored(
    tmp_path: Path, blender: str, blender_command: list[str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "set" / "tower" / "tower_001"
    folder.mkdir(parents=True)
    (tmp_path / "write.py").write_text(WRITER)
    words = [str(tmp_path / "write.py") if word == str(executable.SCRIPT) else word for word in blender_command]
    split = [] if len(blender_command) == 2 else ["--"]
    subprocess.run([*words, *split, str(folder / "tower_001.blend")], check=True, timeout=200, capture_output=True)
    obj(folder / "tower_001.obj", 1)  # both archives of the authors, unpacked into one folder
    options = source("toys4k", tmp_path / "set")
    (entry,) = options.list_objects()
    assert (entry.name, entry.category, Path(entry.source).suffix) == ("tower_001", "tower", ".blend")
    renderer = (
        Raster(resolution=32, samples=1) if kind == "raster" else Blender(resolution=32, samples=8, python=blender)
    )
    options = source("toys4k", tmp_path / "set", renderer=renderer)
    height, width, outcome = height_and_width(options, tmp_path / "scratch")
    assert height > 2 * width
    image = np.asarray(outcome.rgba[0] if kind == "blender" else outcome.view(0))
    np.testing.assert_allclose(
        np.median(image[image[..., 3] == 255], axis=0), [0, 0, 255, 255], atol=60
    )  # Blender's is glossy
    with pytest.raises(UserError, match=r"up_axis z: the format of .*tower_001\.blend says what is up"):
        source("toys4k", tmp_path / "set", up_axis="z").list_objects()


def test_mistakes(tmp_path: Path) -> None:
    toys4k(tmp_path / "set")
    (tmp_path / "list.csv").write_text("path\na.obj\n")
    with pytest.raises(UserError, match=r"a\.obj has no `content`"):
        source("toys4k", tmp_path / "set", objects=str(tmp_path / "list.csv")).list_objects()
    with pytest.raises(UserError, match="is not a folder"):
        source("gso", tmp_path / "nowhere").list_objects()
    with pytest.raises(Missing, match="root"):
        source("gso", tmp_path / "nowhere").check()
    (tmp_path / "lvis-annotations.json.gz").write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot be read as LVIS annotations"):
        source("objaverse_lvis", tmp_path).list_objects()
