"""Free views of every protocol."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from z1g.core.slots import kinds
from z1g.geometry.camera import CameraOptions, orbit_c2w
from z1g.geometry.views import FreeViews
from z1g.geometry.views.g_objaverse import GObjaverseViews
from z1g.geometry.views.original import OriginalViews
from z1g.geometry.views.random_sphere import RandomSphere


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.floats(-90, 90), st.floats(-720, 720), st.floats(0.7, 5))
def test_an_orbit_pose_is_a_camera_that_looks_at_the_origin(elevation: float, azimuth: float, radius: float) -> None:
    pose = orbit_c2w(elevation, azimuth, radius)
    rotation, position = pose[:3, :3], pose[:3, 3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(position + radius * rotation[:, 2], 0, atol=1e-12)
    assert rotation[1, 1] <= 1e-12  # the image's down is not the world's up
    assert rotation[1, 0] == 0  # the horizon is level


def test_from_above_and_below_the_azimuth_determines_the_up_direction() -> None:
    # From above at azimuth 0 the image's up direction points away from the condition's camera, to -z.
    np.testing.assert_allclose(orbit_c2w(90, 0, 1)[:3, :3].T, [[1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-12)
    np.testing.assert_allclose(orbit_c2w(-90, 0, 1)[:3, :3].T, [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-12)
    for sign in (1, -1):
        np.testing.assert_allclose(orbit_c2w(90 * sign, 40, 1), orbit_c2w(89.99999 * sign, 40, 1), atol=1e-6)


def test_g_objaverse_by_hand() -> None:
    angles = GObjaverseViews().angles(38, generator(3))
    assert len(set(angles)) == 38
    rings = [(e, a) for e, a in angles if abs(e) < 90]
    upper = {e for e, _ in rings if e > 5}
    middle = {e for e, _ in rings if e <= 5}
    assert (len(upper), len(middle)) == (1, 1)
    assert 5 < upper.pop() <= 30
    assert -5 <= middle.pop() <= 5
    azimuths = sorted(a for _, a in rings)
    assert azimuths == sorted([15.0 * i for i in range(24)] + [30.0 * i for i in range(12)])
    assert sorted(e for e, _ in angles if abs(e) == 90) == [-90, 90]


def test_test_views_of_rings_are_spread() -> None:
    """The last ten of 38 views include both rings for nearly every object."""
    both = 0
    for seed in range(50):
        elevations = [e for e, _ in GObjaverseViews().angles(38, generator(seed))[-10:]]
        both += any(e > 5 for e in elevations) and any(-5 <= e <= 5 for e in elevations)
    assert both >= 45


def test_the_original_s_views_are_uniform_on_the_sphere() -> None:
    heights = [math.sin(math.radians(e)) for seed in range(200) for e, _ in OriginalViews().angles(49, generator(seed))]
    counts, _ = np.histogram(heights, bins=5, range=(-1, 1))
    assert counts.min() > 0.9 * len(heights) / 5


@pytest.mark.parametrize("kind", sorted(kinds(FreeViews)))
def test_fewer_views_are_drawn_from_the_objects_own_generator(kind: str) -> None:
    views = kinds(FreeViews)[kind]()
    assert views.angles(7, generator(1)) == views.angles(7, generator(1))
    assert views.angles(7, generator(1)) != views.angles(7, generator(2))
    assert len(views.angles(7, generator(1))) == 7


def test_the_band_draws_the_same_views_as_before() -> None:
    """Elevation, then azimuth, view by view: renders of earlier versions keep their cameras."""
    draw = np.random.default_rng([0, 5])
    low, high = CameraOptions().condition_elevation_deg
    angles = [(draw.uniform(low, high), 0.0)]
    angles += [((30.0, -20.0)[i % 2], 30.0 + 60 * i) for i in range(6)]
    sines = np.sin(np.radians((-30.0, 60.0)))
    for _ in range(49):
        angles.append((math.degrees(math.asin(draw.uniform(*sines))), draw.uniform(0, 360)))
    expected = np.stack([orbit_c2w(elevation, azimuth, 1.5) for elevation, azimuth in angles])
    np.testing.assert_array_equal(CameraOptions().poses(5), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"free": {"kind": "g_objaverse"}}, "are 49 views; camera.free has 38 of this kind"),
        ({"free": {"kind": "original"}, "test_views": 11}, "are 50 views; camera.free has 49 of this kind"),
        ({"free": {"kind": "random_sphere", "elevation_deg": (10, -10)}}, "must rise"),
        ({"free": {"kind": "random_sphere", "elevation_deg": (-95, 10)}}, "stay within -90 and 90"),
    ],
)
def test_unavailable_views_are_an_error(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CameraOptions(**values)


def test_protocols_change_the_free_views_only() -> None:
    counts = {"train_views": 30, "validation_views": 3, "test_views": 5}
    rings = CameraOptions(free=GObjaverseViews(), **counts).poses(9)
    plain = CameraOptions(free=RandomSphere(), **counts).poses(9)
    assert rings.shape == plain.shape == (45, 4, 4)
    np.testing.assert_array_equal(rings[:7], plain[:7])
    assert not np.allclose(rings[7:], plain[7:])
