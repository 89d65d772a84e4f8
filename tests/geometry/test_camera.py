"""Cameras: poses at known angles, conversions, the view-1 frame, layouts, intrinsics and rays."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from z1g.data.manifest import int_hash
from z1g.geometry import camera
from z1g.geometry.camera import CameraOptions, Cameras
from z1g.geometry.views.random_sphere import RandomSphere

angles = st.tuples(st.floats(-85, 85), st.floats(-720, 720), st.floats(0.7, 5))
OPTIONS = CameraOptions(train_views=9, validation_views=3, test_views=5)


def azimuth_deg(pose: np.ndarray) -> float:
    return math.degrees(math.atan2(pose[0, 3], pose[2, 3])) % 360


def elevation_deg(pose: np.ndarray) -> float:
    return math.degrees(math.asin(pose[1, 3] / np.linalg.norm(pose[:3, 3])))


def project(cameras: Cameras, points: torch.Tensor) -> torch.Tensor:
    """Pixel coordinates [V,N,2] of world points [N,3]."""
    w2c = cameras.world_to_camera()[0]
    local = points @ w2c[:, :3, :3].transpose(-1, -2) + w2c[:, None, :3, 3]
    pixel = local @ cameras.intrinsics()[0, 0].T
    return pixel[..., :2] / pixel[..., 2:]


def test_orbit_from_the_front() -> None:
    # At [0,0,2], looking along -z: OpenCV x is world x, y is world down, z is forward.
    expected = [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2], [0, 0, 0, 1]]
    np.testing.assert_allclose(camera.orbit_c2w(0, 0, 2.0), expected, atol=1e-12)


def test_orbit_from_the_right() -> None:
    # The camera at azimuth 90 is on +x and looks along -x; its right-hand side is world -z.
    expected = [[0, 0, -1, 2], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(camera.orbit_c2w(0, 90, 2.0), expected, atol=1e-12)


def test_orbit_from_above() -> None:
    h, v = math.cos(math.radians(30)), math.sin(math.radians(30))
    expected = [[1, 0, 0, 0], [0, -h, -v, 1.5 * v], [0, v, -h, 1.5 * h], [0, 0, 0, 1]]
    np.testing.assert_allclose(camera.orbit_c2w(30, 0, 1.5), expected, atol=1e-12)


@given(angles)
def test_poses_are_rigid_right_handed_and_level(angle: tuple[float, float, float]) -> None:
    pose = camera.orbit_c2w(*angle)
    rotation = pose[:3, :3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)
    assert rotation[1, 0] == pytest.approx(0, abs=1e-9), "the image's x axis is horizontal"
    assert rotation[1, 1] < 0, "the image's y axis points down"
    np.testing.assert_allclose(pose[:3, 3] + angle[2] * rotation[:, 2], 0, atol=1e-9)


@given(angles)
def test_blender_round_trip(angle: tuple[float, float, float]) -> None:
    pose = camera.orbit_c2w(*angle)
    converted = camera.to_blender(pose)
    np.testing.assert_allclose(camera.from_blender(converted), pose, atol=1e-12)
    assert np.linalg.det(converted[:3, :3]) == pytest.approx(1)


def test_blender_world_is_z_up() -> None:
    pose = camera.to_blender(camera.orbit_c2w(30, 0, 2.0))
    # z1g's +z is Blender's -y: the front camera is on Blender's -y axis, above the ground.
    np.testing.assert_allclose(pose[:3, 3], [0, -2 * math.cos(math.pi / 6), 1], atol=1e-12)
    # A Blender camera looks along its own -z: towards the origin.
    np.testing.assert_allclose(-pose[:3, 2], -pose[:3, 3] / 2, atol=1e-12)
    # Its y axis points up.
    assert pose[2, 1] == pytest.approx(math.cos(math.pi / 6))


def test_blender_identity_camera() -> None:
    # Blender's unrotated camera looks down; its up is world +y, which is z1g's -z.
    expected = [[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(camera.from_blender(np.eye(4)), expected, atol=1e-12)


def test_opengl_flips_the_camera_axes_only() -> None:
    pose = camera.orbit_c2w(20, 50, 1.5)
    flipped = camera.to_opengl(pose)
    np.testing.assert_allclose(flipped[:3, 0], pose[:3, 0])
    np.testing.assert_allclose(flipped[:3, 1:3], -pose[:3, 1:3])
    np.testing.assert_allclose(flipped[:, 3], pose[:, 3])


def test_conversions_take_batches() -> None:
    poses = OPTIONS.poses(3)
    np.testing.assert_allclose(camera.to_blender(poses)[4], camera.to_blender(poses[4]))
    np.testing.assert_allclose(camera.from_blender(camera.to_blender(poses)), poses, atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["v1.1", "v1.2"]))
def test_view_frame(object_seed: int, layout: str) -> None:
    options = CameraOptions(layout=layout, train_views=1, validation_views=1, test_views=1)
    poses = options.poses(object_seed)
    frame = camera.view_frame(poses, options.radius)
    moved = frame @ poses
    home = np.eye(4)
    home[2, 3] = options.radius
    np.testing.assert_allclose(camera.to_opengl(moved[1]), home, atol=1e-9)
    before = np.linalg.inv(poses[0]) @ poses
    np.testing.assert_allclose(np.linalg.inv(moved[0]) @ moved, before, atol=1e-9)
    np.testing.assert_allclose(frame[:3, :3] @ frame[:3, :3].T, np.eye(3), atol=1e-9)
    # Orbit poses all look at the origin, so the transform keeps it fixed.
    np.testing.assert_allclose(frame[:3, 3], 0, atol=1e-9)


def test_the_original_s_orbit() -> None:
    # In the original: orbit_camera(-elevation, azimuth, radius), y = -radius·sin(-elevation),
    # then position·cam_radius/1.5.
    elevation, azimuth = math.radians(25), math.radians(70)
    position = np.array(
        [
            2 * math.cos(-elevation) * math.sin(azimuth),
            -2 * math.sin(-elevation),
            2 * math.cos(-elevation) * math.cos(azimuth),
        ]
    )
    pose = camera.from_original_orbit(25, 70, 2.0, cam_radius=1.8)
    np.testing.assert_allclose(pose[:3, 3], position * 1.8 / 1.5, atol=1e-12)
    np.testing.assert_allclose(pose[:3, 2], -position / 2, atol=1e-12)


@pytest.mark.parametrize(("layout", "high", "low"), [("v1.1", 30, -20), ("v1.2", 20, -10)])
def test_zero123plus_layout(layout: str, high: float, low: float) -> None:
    poses = CameraOptions(layout=layout).poses(11)
    assert [azimuth_deg(p) for p in poses[1:7]] == pytest.approx([30, 90, 150, 210, 270, 330])
    assert [elevation_deg(p) for p in poses[1:7]] == pytest.approx([high, low] * 3)
    assert azimuth_deg(poses[0]) == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(np.linalg.norm(poses[:, :3, 3], axis=1), 1.5)


@given(st.integers(0, 2**32 - 1))
def test_drawn_views_stay_in_their_bands(object_seed: int) -> None:
    free = RandomSphere(elevation_deg=(-40, 12))
    options = CameraOptions(condition_elevation_deg=(5, 10), free=free, train_views=20)
    poses = options.poses(object_seed)
    assert 5 <= elevation_deg(poses[0]) <= 10
    assert all(-40.001 <= elevation_deg(p) <= 12.001 for p in poses[7:])


def test_free_views_are_uniform_on_the_band() -> None:
    options = CameraOptions(train_views=4000)
    heights = options.poses(0)[7:, 1, 3] / options.radius
    low, high = (math.sin(math.radians(e)) for e in RandomSphere().elevation_deg)
    # Uniform on the sphere means uniform in height.
    counts, _ = np.histogram(heights, bins=4, range=(low, high))
    assert counts.min() > 900
    azimuths, _ = np.histogram([azimuth_deg(p) for p in options.poses(0)[7:]], bins=4, range=(0, 360))
    assert azimuths.min() > 900


def test_poses_depend_on_object_and_seed_only() -> None:
    np.testing.assert_array_equal(OPTIONS.poses(int_hash("chair")), OPTIONS.poses(int_hash("chair")))
    assert not np.allclose(OPTIONS.poses(1)[7:], OPTIONS.poses(2)[7:])
    reseeded = CameraOptions(**{**OPTIONS.model_dump(), "seed": 1})
    assert not np.allclose(OPTIONS.poses(1)[7:], reseeded.poses(1)[7:])
    np.testing.assert_array_equal(OPTIONS.poses(1)[1:7], OPTIONS.poses(2)[1:7])


def test_views_are_disjoint_and_complete() -> None:
    groups = [[0], camera.INPUT_VIEWS, OPTIONS.train_ids, OPTIONS.validation_ids, OPTIONS.test_ids]
    assert [v for group in groups for v in group] == list(range(OPTIONS.n_views))
    assert [len(group) for group in groups] == [1, 6, 9, 3, 5]
    assert len(OPTIONS.poses(0)) == OPTIONS.n_views


def test_intrinsics() -> None:
    cameras = Cameras(torch.eye(4, dtype=torch.float64)[None, None], 90.0, 40, 60)
    # At 90 degrees the focal length is half the height.
    np.testing.assert_allclose(cameras.intrinsics()[0, 0], [[20, 0, 30], [0, 20, 20], [0, 0, 1]], atol=1e-12)
    assert Cameras(cameras.c2w, 49.1, 512, 512).focal == pytest.approx(256 / math.tan(math.radians(24.55)))


def test_intrinsics_of_several_cameras_are_apart() -> None:
    c2w = torch.eye(4).expand(2, 3, 4, 4)
    first = Cameras(c2w, 90.0, 40, 60).intrinsics()
    first.zero_()
    again, wider = Cameras(c2w, 90.0, 40, 60).intrinsics(), Cameras(c2w.double(), 90.0, 40, 80).intrinsics()
    assert again.dtype == torch.float32
    assert wider.dtype == torch.float64
    for matrices, x in ((again, 30), (wider, 40)):
        expected = np.broadcast_to([[20, 0, x], [0, 20, 20], [0, 0, 1]], (2, 3, 3, 3))
        np.testing.assert_allclose(matrices, expected, atol=1e-5)


def test_world_to_camera_inverts() -> None:
    c2w = torch.from_numpy(OPTIONS.poses(5))[None]
    product = Cameras(c2w, 49.1, 8, 8).world_to_camera() @ c2w
    torch.testing.assert_close(product, torch.eye(4, dtype=torch.float64).expand_as(product), atol=1e-12, rtol=0)


def test_rays_meet_their_pixels() -> None:
    cameras = Cameras(torch.from_numpy(OPTIONS.poses(5))[None, 1:4], 49.1, 6, 8)
    origins, directions = camera.pixel_rays(cameras)
    assert origins.shape == directions.shape == (1, 3, 3, 6, 8)
    for view in range(3):
        points = (origins + 1.7 * directions)[0, view].flatten(1).T
        pixels = project(cameras, points)[view]
        y, x = torch.meshgrid(torch.arange(6.0), torch.arange(8.0), indexing="ij")
        centers = torch.stack([x.flatten() + 0.5, y.flatten() + 0.5], dim=1).double()
        torch.testing.assert_close(pixels, centers, atol=1e-9, rtol=0)
        depth = points @ cameras.c2w[0, view, :3, 2] - cameras.c2w[0, view, :3, 2] @ cameras.c2w[0, view, :3, 3]
        torch.testing.assert_close(depth, torch.full_like(depth, 1.7))


def test_plucker_rays_in_float64() -> None:
    """By the definition, from any two points of the ray."""
    cameras = Cameras(torch.from_numpy(OPTIONS.poses(5))[None, 1:4], 49.1, 6, 8)
    rays = camera.plucker_rays(cameras)
    assert rays.shape == (1, 3, 6, 6, 8)
    focal = 3 / math.tan(math.radians(49.1) / 2)
    for view, row, column in ((0, 0, 0), (1, 5, 2), (2, 3, 7)):
        c2w = OPTIONS.poses(5)[1 + view]
        toward = c2w[:3, :3] @ [(column + 0.5 - 4) / focal, (row + 0.5 - 3) / focal, 1.0]
        first, second = c2w[:3, 3] + 0.4 * toward, c2w[:3, 3] + 2.9 * toward
        length = np.linalg.norm(second - first)
        expected = np.concatenate([np.cross(first, second) / length, (second - first) / length])
        np.testing.assert_allclose(rays[0, view, :, row, column].numpy(), expected, atol=1e-12)


def test_a_point_above_appears_above() -> None:
    cameras = Cameras(torch.from_numpy(camera.orbit_c2w(0, 0, 1.5))[None, None], 49.1, 100, 100)
    x, y = project(cameras, torch.tensor([[0.1, 0.2, 0.0]], dtype=torch.float64))[0, 0].tolist()
    assert x > 50
    assert y < 50


def test_turntable() -> None:
    poses = camera.turntable(4, 20, 1.5)
    assert [azimuth_deg(p) for p in poses] == pytest.approx([0, 90, 180, 270])
    assert [elevation_deg(p) for p in poses] == pytest.approx([20] * 4)


def test_views_selects() -> None:
    cameras = Cameras(torch.from_numpy(OPTIONS.poses(5))[None], 49.1, 6, 6)
    torch.testing.assert_close(cameras.views([3, 1]).c2w[0, 1], cameras.c2w[0, 1])
