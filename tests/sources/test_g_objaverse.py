"""The data source of G-buffer Objaverse on files generated from the data set's conventions."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from z1g.core.errors import UserError
from z1g.data.shards import Rejected, RenderedObject
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, Cameras, pixel_rays
from z1g.sources.g_objaverse import GObjaverse

SIZE, DISTANCE, RADIUS = 48, 2.0, 0.45
FOV = 2 * math.atan(512 / 1422.222)
CAMERA = CameraOptions(train_views=20, validation_views=3, test_views=5)
RINGS = [(17.0, 15.0 * i) for i in range(25)] + [(90.0, 0.0), (-90.0, 0.0)] + [(2.0, 30.0 * i) for i in range(13)]


def axes(elevation: float, turn: float) -> tuple[NDArray[np.float64], ...]:
    """Right, down, forward and position of a camera that looks at the origin in a z-up world; `turn` is about z."""
    e, t = math.radians(elevation), math.radians(turn)
    forward = -np.array([math.cos(e) * math.cos(t), math.cos(e) * math.sin(t), math.sin(e)])
    right = np.array([-math.sin(t), math.cos(t), 0.0])
    return right, np.cross(forward, right), forward, -DISTANCE * forward


def draw(right: Any, down: Any, forward: Any, origin: Any) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """RGBA and planar depth of a ball whose color is its normal, 0.5 + 0.5 n, in the z-up world."""
    focal = SIZE / 2 / math.tan(FOV / 2)
    rgba, depth = np.zeros((SIZE, SIZE, 4), np.uint8), np.zeros((SIZE, SIZE), np.float32)
    for i in range(SIZE):
        for j in range(SIZE):
            ray = (j + 0.5 - SIZE / 2) / focal * right + (i + 0.5 - SIZE / 2) / focal * down + forward
            a, b, c = ray @ ray, 2 * ray @ origin, origin @ origin - RADIUS**2
            if b * b > 4 * a * c:
                depth[i, j] = (-b - math.sqrt(b * b - 4 * a * c)) / (2 * a)
                normal = (origin + depth[i, j] * ray) / RADIUS
                rgba[i, j] = (*(127.5 + 127.5 * normal), 255)
    return rgba, depth


@pytest.fixture(scope="module")
def images() -> list[tuple[Any, ...]]:
    return [(axes(*angles), *draw(*axes(*angles))) for angles in RINGS]


@pytest.fixture
def root(tmp_path: Path, images: list[tuple[Any, ...]]) -> Path:
    folder = tmp_path / "0/10010/campos_512_v4"
    for i, ((right, down, forward, origin), rgba, depth) in enumerate(images):
        view = folder / f"{i:05d}"
        view.mkdir(parents=True)
        camera = {"x": right, "y": down, "z": forward, "origin": origin}
        document = {name: value.tolist() for name, value in camera.items()} | {"x_fov": FOV, "y_fov": FOV, "max": 1}
        (view / f"{view.name}.json").write_text(json.dumps(document))
        Image.fromarray(rgba, "RGBA").save(view / f"{view.name}.png")
        write_exr(view / f"{view.name}_nd.exr", depth)
    return tmp_path


def write_exr(path: Path, depth: NDArray[np.float32]) -> None:
    """Normals, which are not read, and depth; outside the object, depth has invalid values in front of the cube."""
    channels = {name: np.full((SIZE, SIZE), 0.1, np.float32) for name in "RGB"}
    channels["A"] = np.where(depth > 0, depth, np.float32(0.3))
    with OpenEXR.File({"type": OpenEXR.scanlineimage}, channels) as file:
        file.write(str(path))


def only(root: Path, camera: CameraOptions = CAMERA, **values: Any) -> RenderedObject | Rejected:
    source = GObjaverse(root=str(root), **values)
    (result,) = source.ingest(source.list_objects(), camera, root, 1)
    return result.outcome


def whole(root: Path) -> RenderedObject:
    item = only(root)
    assert isinstance(item, RenderedObject), item
    return item


@pytest.mark.slow
def test_depth_and_colors_are_on_the_ball(root: Path) -> None:
    """Images, depth and poses in z1g's world: points of every input view are on the scaled ball and have its color."""
    item = whole(root)
    scale = CAMERA.radius / DISTANCE
    assert item.depth is not None
    assert item.fov_y_deg == pytest.approx(math.degrees(FOV))
    cameras = Cameras(torch.from_numpy(item.c2w[None, list(INPUT_VIEWS)]), item.fov_y_deg, SIZE, SIZE)
    origins, rays = (x[0].permute(0, 2, 3, 1).numpy() for x in pixel_rays(cameras))
    covered = item.depth > 0
    np.testing.assert_array_equal(covered, item.rgba[list(INPUT_VIEWS), ..., 3] > 0)
    x, y, z = (origins + rays * item.depth[..., None])[covered].T / (RADIUS * scale)
    np.testing.assert_allclose(x * x + y * y + z * z, 1, atol=1e-4)
    colors = item.rgba[list(INPUT_VIEWS), ..., :3][covered]
    np.testing.assert_allclose(colors, 127.5 + 127.5 * np.stack([x, -z, y], axis=1), atol=1.5)


def test_poses_match_z1gs_layout(root: Path) -> None:
    item = whole(root)
    assert len(item.rgba) == len(item.c2w) == CAMERA.n_views
    places = item.c2w[:, :3, 3]
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), CAMERA.radius, atol=1e-9)
    azimuths = np.degrees(np.arctan2(places[:, 0], places[:, 2]))
    np.testing.assert_allclose((azimuths[1:7] - azimuths[0]) % 360, [30, 90, 150, 210, 270, 330], atol=1e-6)
    elevations = np.degrees(np.arcsin(places[1:7, 1] / CAMERA.radius))
    np.testing.assert_allclose(elevations, [17, 2] * 3, atol=1e-6)  # the rings nearest to 30 and -20 degrees
    assert len({tuple(pose.round(6)) for pose in places[1:7]}) == 6


def test_free_views_are_drawn_per_object_and_not_in_order(root: Path) -> None:
    first, again = whole(root), whole(root)
    np.testing.assert_array_equal(first.c2w, again.c2w)
    heights = first.c2w[7:, 1, 3]
    assert (np.diff(heights) != 0).sum() > 5  # both rings alternate


def test_listing_by_folder_and_by_index(root: Path) -> None:
    (root / "1/7/campos_512_v4").mkdir(parents=True)
    (root / "index.json").write_text('["1/7", "0/10010", "9/9"]')
    assert [e.id for e in GObjaverse(root=str(root)).list_objects()] == ["0_10010", "1_7"]
    listed = GObjaverse(root=str(root), index=str(root / "index.json")).list_objects()
    assert [e.id for e in listed] == ["0_10010", "1_7", "9_9"]
    assert listed[0].source == (root / "0/10010").as_posix()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"root": "nowhere"}, r"data\.root: nowhere is not a folder"),
        ({"root": "empty"}, r"has no <dictionary>/<instance>/campos_512_v4"),
        ({"index": "gone.json"}, r"data\.index: gone\.json cannot be read"),
        ({"index": "number.json"}, r"data\.index: number\.json is not a list of strings"),
    ],
)
def test_mistakes_in_the_configuration_are_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(root)
    (root / "empty").mkdir()
    (root / "number.json").write_text("[1]")
    with pytest.raises(UserError, match=message):
        GObjaverse(**{"root": ".", **values}).list_objects()


def rewritten(**changes: Any) -> Callable[[Path], None]:
    def change(view: Path) -> None:
        path = view / f"{view.name}.json"
        document = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))

    return change


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda view: (view / "00002.json").unlink(), r"00002\.json cannot be read"),
        (lambda view: (view / "00002.json").write_text("{"), r"00002\.json is not a camera"),
        (lambda view: (view / "00002.json").write_text("[" * 100_000), r"00002\.json is not a camera"),
        (rewritten(x=None), r"is not a camera: KeyError\('x'\)"),
        (rewritten(origin=[1, 2]), "is not a camera"),
        (rewritten(x=[2, 0, 0]), "its axes are not a rotation"),
        (rewritten(origin=[math.nan, 0, 0]), "its axes are not a rotation"),
        (rewritten(origin=[0.1, 0, 0]), "it is inside the object"),
        (rewritten(y_fov=0.5), "different fields of view"),
        (lambda view: (view / "00002_nd.exr").unlink(), r"00002_nd\.exr is missing"),
        (lambda view: (view / "00002_nd.exr").write_bytes(b"v/1\x01"), r"00002_nd\.exr has no depth"),
        (lambda view: (view / "00002.png").write_bytes(b"\x89PNG"), r"00002\.png is not a complete image"),
        (lambda view: Image.new("RGB", (SIZE, SIZE)).save(view / "00002.png"), "has mode RGB, not RGBA"),
        (lambda view: Image.new("RGBA", (9, 9)).save(view / "00002.png"), "different sizes"),
    ],
)
def test_incomplete_objects_are_rejected_with_the_reason(root: Path, damage: Any, reason: str) -> None:
    damage(root / "0/10010/campos_512_v4/00002")  # 30 degrees from the condition: input view 1
    result = only(root)
    assert isinstance(result, Rejected)
    assert re.search(reason, result.reason), result.reason


def test_the_error_for_too_few_views_has_both_numbers(root: Path) -> None:
    result = only(root, CameraOptions(train_views=30, validation_views=3, test_views=5))
    assert isinstance(result, Rejected)
    assert "has 40 views, but the configuration has 45" in result.reason
