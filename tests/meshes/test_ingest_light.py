"""Lighting and normals with the real Blender, compared with the expected optics and geometry."""

import dataclasses
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from support.meshes import CAMERA, SIZE, cuboid, options

from z1g.core.errors import UserError
from z1g.data.shards import BrokenObject, RenderedObject, ShardReader, write_object
from z1g.geometry.camera import CONDITION_VIEW, INPUT_VIEWS, Cameras, pixel_rays
from z1g.meshes.lighting.hdri import Hdri
from z1g.meshes.lighting.three_point import ThreePoint
from z1g.meshes.lighting.uniform import Uniform
from z1g.sources.meshes import Meshes

pytestmark = pytest.mark.blender
MATERIAL = "newmtl white\nKd 1 1 1\nKs 0 0 0\n"


def sphere(rings: int = 24) -> str:
    """OBJ text of a unit sphere with exact normals at its vertices."""
    lines = ["mtllib white.mtl", "usemtl white"]
    columns = 2 * rings
    for i in range(rings + 1):
        for j in range(columns):
            polar, around = np.pi * i / rings, 2 * np.pi * j / columns
            x, y, z = np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)
            lines += [f"v {x:.9f} {y:.9f} {z:.9f}", f"vn {x:.9f} {y:.9f} {z:.9f}"]
    for i in range(rings):
        for j in range(columns):
            corners = (i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)
            numbers = [1 + row * columns + column % columns for row, column in reversed(corners)]
            lines.append("f " + " ".join(f"{n}//{n}" for n in numbers))
    return "\n".join(lines) + "\n"


def render(blender: str, folder: Path, name: str, **values) -> RenderedObject:
    data = Meshes(paths=(str(folder / name),), renderer=options(blender, **values))
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    (ingested,) = data.ingest(data.list_objects(), CAMERA, scratch, 2)
    assert isinstance(ingested.outcome, RenderedObject), ingested.outcome
    return ingested.outcome


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("meshes")
    (folder / "sphere.obj").write_text(sphere())
    (folder / "box.obj").write_text(cuboid((2, 2, 2), (4, 4, 4)))
    (folder / "white.mtl").write_text(MATERIAL)
    return folder


def hit_points(item: RenderedObject) -> np.ndarray:
    """World-space points [6,H,W,3] of the input views' pixels, unprojected from depth."""
    cameras = Cameras(torch.from_numpy(item.c2w[None, list(INPUT_VIEWS)]), item.fov_y_deg, SIZE, SIZE)
    origin, direction = (x[0].permute(0, 2, 3, 1).numpy() for x in pixel_rays(cameras))
    return origin + direction * item.depth[..., None]


@pytest.mark.parametrize("name", ["sphere", "box"])
def test_normals_match_the_shape(blender, folder, name):
    item = render(blender, folder, f"{name}.obj", normals=True)
    points, seen = hit_points(item), item.depth > 0
    assert item.normals.dtype == np.float16
    assert item.normals.shape == (len(INPUT_VIEWS), SIZE, SIZE, 3)
    assert not item.normals[~seen].any()
    normals = item.normals[seen].astype(float)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=2e-3)
    if name == "sphere":
        truth = points[seen] / np.linalg.norm(points[seen], axis=1, keepdims=True)
        assert np.degrees(np.arccos(np.clip((normals * truth).sum(1), -1, 1))).max() < 3
    else:
        # On a face, one coordinate is the largest; at an edge, either face is correct.
        size = np.abs(points[seen])
        clear = np.sort(size, axis=1)[:, 2] - np.sort(size, axis=1)[:, 1] > 1e-3
        truth = np.eye(3)[size.argmax(1)] * np.sign(points[seen])
        np.testing.assert_allclose(normals[clear], truth[clear], atol=1e-3)
        assert clear.mean() > 0.9


def test_no_normals_by_default(blender, folder):
    assert render(blender, folder, "box.obj").normals is None


@pytest.mark.parametrize("rotation", [0.0, 90.0])
def test_a_panorama_lights_from_where_it_is_bright(blender, folder, tmp_path, rotation, monkeypatch):
    """The center of the panorama is red, a quarter turn to its right (seen from inside) is green, the rest is black."""
    monkeypatch.chdir(tmp_path)
    image = np.zeros((16, 32, 3), np.float32)
    image[4:12, 14:18], image[4:12, 22:26] = (30, 0, 0), (0, 30, 0)
    write_hdr(tmp_path / "room.hdr", image)
    item = render(blender, folder, "sphere.obj", lighting=Hdri(file="room.hdr", rotation_deg=rotation))
    front = item.rgba[CONDITION_VIEW].astype(int)
    assert front[0, 0, 3] == 0  # the panorama itself is not visible
    # For a viewer inside who faces the panorama's center (behind the camera), right is left in the image.
    left, right = front[:, : SIZE // 2].sum((0, 1)), front[:, SIZE // 2 :].sum((0, 1))
    if rotation == 0.0:
        assert min(left[0], right[0]) > 0.7 * max(left[0], right[0]) > 0
        assert left[1] > 3 * right[1]
    else:
        # Azimuth increases to the right of the condition view's camera: red comes from there, green from the front.
        assert right[0] > 3 * left[0]
        assert min(left[1], right[1]) > 0.7 * max(left[1], right[1]) > 0


def write_hdr(path: Path, image: np.ndarray) -> None:
    """Radiance RGBE without compression."""
    exponent = np.ceil(np.log2(np.maximum(image.max(-1, keepdims=True), 1e-9)))
    rgbe = np.concatenate([image / 2.0**exponent * 255, exponent + 128], -1)
    rgbe[image.max(-1) == 0] = 0
    header = f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {len(image)} +X {image.shape[1]}\n"
    path.write_bytes(header.encode() + rgbe.astype(np.uint8).tobytes())


def test_three_suns_shade_and_even_light_does_not(blender, folder):
    even = render(blender, folder, "sphere.obj", lighting=Uniform()).rgba[CONDITION_VIEW]
    suns = render(blender, folder, "sphere.obj", lighting=ThreePoint()).rgba[CONDITION_VIEW]
    inside = np.s_[12:20, 12:20, :3]
    assert even[inside].std() < 3
    rows, columns = np.nonzero(suns[..., 3] == 255)
    bright = suns[rows, columns, 0].astype(float)
    assert np.corrcoef(columns, bright)[0, 1] > 0.2  # the key light is on the right
    assert np.corrcoef(-rows, bright)[0, 1] > 0.2  # and above


def test_a_panorama_that_is_missing_or_broken_is_an_error_that_names_it(blender, folder, tmp_path):
    for name, words in (("nowhere.exr", "is not a file"), ("broken.hdr", "not an image|cannot be read")):
        if name == "broken.hdr":
            (tmp_path / name).write_text("not a panorama")
        with pytest.raises(UserError, match=words) as error:
            render(blender, folder, "box.obj", lighting=Hdri(file=str(tmp_path / name)))
        assert name in str(error.value)


@pytest.mark.slow
def test_eevee_renders_the_same_object_given_a_graphics_driver(blender, folder):
    try:
        fast = render(blender, folder, "sphere.obj", engine="eevee")
    except UserError as error:
        if "OpenGL" not in str(error) and "EGL" not in str(error):
            raise
        pytest.skip("no OpenGL here")
    slow = render(blender, folder, "sphere.obj")
    np.testing.assert_array_equal(fast.depth, slow.depth)
    coverage = [item.rgba[..., 3].mean(dtype=float) for item in (fast, slow)]
    assert coverage[0] == pytest.approx(coverage[1], rel=0.02)
    middle = np.s_[:, 12:20, 12:20, :3]
    assert np.abs(fast.rgba[middle].mean((0, 1, 2)) - slow.rgba[middle].mean((0, 1, 2))).max() < 40


def test_a_shard_with_wrong_normals_is_broken(blender, folder, tmp_path):
    item = render(blender, folder, "box.obj", normals=True)
    for name, normals in (("right", item.normals), ("short", item.normals[:5])):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            write_object(tar, dataclasses.replace(item, normals=normals))
    np.testing.assert_array_equal(ShardReader(tmp_path / "right.tar").read(item.id).normals, item.normals)
    with pytest.raises(BrokenObject, match="normals"):
        ShardReader(tmp_path / "short.tar").read(item.id)
