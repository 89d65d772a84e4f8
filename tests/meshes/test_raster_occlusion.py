"""Ambient occlusion against form factors: in closed form, and by rays in float64."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.meshes import CAMERA, cuboid
from support.raster import FACES, FOV_DEG, camera, decoded, drawn, rasterizer, square

from z1g.data.shards import EncodedObject
from z1g.meshes.raster.draw import Rasterizer
from z1g.meshes.raster.occlusion import bases
from z1g.meshes.raster.scene import Material, Part
from z1g.meshes.renderers import Raster
from z1g.sources.meshes import Meshes

pytestmark = pytest.mark.slow
N = 256
FLOOR_Z = -0.15
TOLERANCE = 0.03
"""128 directions, and an offset of half a hundredth of the object."""


@pytest.fixture(scope="module")
def gl() -> Rasterizer:
    return rasterizer(N, samples=1, occlusion=True)


def openness(gl: Rasterizer, parts: Sequence[Part], point: Sequence[float], azimuth_deg: float) -> float:
    """What a camera sees at a white point, linear."""
    c2w = camera(azimuth_deg)
    x, y, z = (np.asarray(point) - c2w[:3, 3]) @ c2w[:3, :3]
    focal = N / 2 / np.tan(np.radians(FOV_DEG) / 2)
    row, column = int(N / 2 + focal * y / z), int(N / 2 + focal * x / z)
    image = drawn(gl, parts, azimuth_deg)
    assert image[row, column, 3] == 255
    return float(decoded(image[row, column, :3].astype(float)).mean())


def floor() -> Part:
    return square(FLOOR_Z, 0.3)


def disc(radius: float, z: float) -> Part:
    angle = np.arange(64) / 64 * 2 * np.pi
    rim = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(64, z)], axis=1)
    around = np.arange(64)
    triangles = np.stack([np.full(64, 64), around, (around + 1) % 64], axis=1)
    return Part(np.concatenate([rim, [[0, 0, z]]]), triangles)


def ball(radius: float, z: float) -> Part:
    across, down = np.meshgrid(np.arange(65) / 64 * 2 * np.pi, np.arange(33) / 32 * np.pi)
    points = np.stack([np.sin(down) * np.sin(across), np.cos(down), np.sin(down) * np.cos(across)], -1).reshape(-1, 3)
    index = np.arange(len(points)).reshape(across.shape)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    triangles = np.stack([a, b, c, a, c, d], axis=-1).reshape(-1, 3)
    return Part(radius * points + np.array([0, 0, z]), triangles, points)


def test_what_nothing_is_in_front_of_keeps_its_color(gl: Rasterizer) -> None:
    plain = rasterizer(N, samples=1)
    parts = [square(0.1, 0.25, Material((0.3, 0.5, 0.7, 1.0)))]
    np.testing.assert_allclose(drawn(gl, parts, 30).astype(int), drawn(plain, parts, 30), atol=1)
    # Convex: every side sees all of its hemisphere.
    box = [ball(0.3, 0.0)]
    assert decoded(drawn(gl, box)[N // 2, N // 2, :3].astype(float)).min() > 0.99


@pytest.mark.parametrize(("radius", "height"), [(0.1, 0.1), (0.15, 0.1), (0.1, 0.2)])
def test_a_disc_above_blocks_its_form_factor(gl: Rasterizer, radius: float, height: float) -> None:
    """Siegel and Howell: r² / (r² + h²)."""
    seen = openness(gl, [floor(), disc(radius, FLOOR_Z + height)], (0, 0, FLOOR_Z), azimuth_deg=60)
    assert seen == pytest.approx(height**2 / (radius**2 + height**2), abs=TOLERANCE)


@pytest.mark.parametrize(("radius", "height"), [(0.1, 0.2), (0.08, 0.16)])
def test_a_ball_above_blocks_its_form_factor(gl: Rasterizer, radius: float, height: float) -> None:
    """A sphere in the direction of the normal: (r / d)²."""
    seen = openness(gl, [floor(), ball(radius, FLOOR_Z + height)], (0, 0, FLOOR_Z), azimuth_deg=60)
    assert seen == pytest.approx(1 - (radius / height) ** 2, abs=TOLERANCE)


def wall(x: float, height: float) -> Part:
    """Perpendicular to the floor, along y, on the left of x = 0."""
    y, z = np.array([0.3, 0.3, -0.3, -0.3]), FLOOR_Z + np.array([0, height, height, 0])
    return Part(np.column_stack([np.full(4, x), y, z]), FACES)


def blocked_by_wall(distance: float, height: float) -> float:
    """Share of cosine-weighted rays from the floor that hit the wall, by a grid of Malley's method in float64."""
    u, v = np.meshgrid((np.arange(1500) + 0.5) / 1500, (np.arange(1500) + 0.5) / 1500)
    r, angle = np.sqrt(u), 2 * np.pi * v
    x, y, z = r * np.cos(angle), r * np.sin(angle), np.sqrt(1 - u)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(x < 0, -distance / x, np.inf)
        hit = (x < 0) & (np.abs(t * y) <= 0.3) & (t * z <= height)
    return float(hit.mean())


@pytest.mark.parametrize("distance", [0.04, 0.1, 0.25])
def test_a_wall_beside_blocks_its_form_factor(gl: Rasterizer, distance: float) -> None:
    height, x = 0.35, -0.1
    seen = openness(gl, [floor(), wall(x, height)], (x + distance, 0, FLOOR_Z), azimuth_deg=0)
    assert seen == pytest.approx(1 - blocked_by_wall(distance, height), abs=TOLERANCE)


def test_at_the_foot_of_a_wall_half_is_left_and_in_a_corner_a_quarter(gl: Rasterizer) -> None:
    second = wall(-0.1, 0.35)
    swapped = Part(second.positions[:, [1, 0, 2]], second.triangles)
    near = 0.015
    along = openness(gl, [floor(), wall(-0.1, 0.35)], (-0.1 + near, 0, FLOOR_Z), azimuth_deg=0)
    corner = openness(gl, [floor(), wall(-0.1, 0.35), swapped], (-0.1 + near, -0.1 + near, FLOOR_Z), azimuth_deg=0)
    assert along == pytest.approx(0.5, abs=0.06)
    assert corner == pytest.approx(0.25, abs=0.06)


def test_inside_a_closed_box_it_is_dark(gl: Rasterizer) -> None:
    half = 0.25
    sides = []
    for axis in range(3):
        for sign in (-1, 1):
            if (axis, sign) == (2, 1):
                continue  # the camera looks in here; this side is open
            side = square(sign * half, half)
            sides.append(Part(np.roll(side.positions, axis + 1, axis=1), side.triangles))
    deep = openness(gl, sides, (0, 0, -half), azimuth_deg=0)
    # Parallel squares of side 2h at distance 2h, from the center of one: the open side's form factor.
    a = half / np.hypot(half, 2 * half)
    factor = 4 / (2 * np.pi) * 2 * a * np.arctan(a)
    assert deep == pytest.approx(factor, abs=TOLERANCE)


def test_masked_and_transparent_surfaces_block_where_they_are_seen(gl: Rasterizer) -> None:
    plate = disc(0.15, FLOOR_Z + 0.1)
    point = (0, 0, FLOOR_Z)
    for alpha, expected in ((0.3, 1.0), (0.7, 0.1**2 / (0.15**2 + 0.1**2))):
        pane = Part(plate.positions, plate.triangles, material=Material((1, 1, 1, alpha), alpha_mode="blend"))
        assert openness(gl, [floor(), pane], point, azimuth_deg=60) == pytest.approx(expected, abs=TOLERANCE)


def test_directions_are_even_and_axes_right_handed() -> None:
    axes = bases(128)
    np.testing.assert_allclose(axes @ axes.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (128, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(axes), 1, atol=1e-12)
    towards = axes[:, 2]
    np.testing.assert_allclose(towards.mean(axis=0), 0, atol=0.01)
    np.testing.assert_allclose(towards.T @ towards / 128, np.eye(3) / 3, atol=0.01)


def test_the_option_darkens_where_boxes_meet(tmp_path: Path) -> None:
    rasterizer(16)
    (tmp_path / "a.obj").write_text(cuboid((-1, 0, -1), (1, 0.2, 1)) + cuboid((-0.2, 0.2, -0.2), (0.2, 1.2, 0.2), 9))
    images = []
    for occlusion in (False, True):
        data = Meshes(paths=(str(tmp_path / "a.obj"),), renderer=Raster(resolution=48, ambient_occlusion=occlusion))
        scratch = tmp_path / str(occlusion)
        scratch.mkdir()
        (ingested,) = data.ingest(data.list_objects(), CAMERA, scratch, 1)
        assert isinstance(ingested.outcome, EncodedObject)
        images.append(ingested.outcome.view(0).astype(int))
    np.testing.assert_array_equal(images[0][..., 3], images[1][..., 3])
    solid = images[0][..., 3] == 255
    darker = (images[0] - images[1])[solid][:, :3]
    assert darker.min() >= -1
    assert darker.max() > 30
