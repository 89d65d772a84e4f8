"""Colors that depend on the direction of view, through a system's file and frame to the images that are measured."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from z1g.geometry.camera import Cameras, orbit_c2w
from z1g.geometry.frames import FRAMES, Condition, to_world
from z1g.peers.splats import read_splats
from z1g.render.cpu import Cpu

C0, C1 = 0.28209479177387814, 0.4886025119029199
"""Of the real harmonics of degree 0 and 1."""
DC = np.array([0.1, -0.2, 0.3])
REST = np.array([[0.15, -0.1, 0.05], [-0.12, 0.2, 0.1], [0.1, 0.1, -0.2]])
"""Coefficients of y, z and x [3,3], by color: small, so that no color is clipped."""


def write(path: Path) -> None:
    """One opaque ball at the origin, as 3D Gaussian Splatting writes it: f_rest by color, then by coefficient."""
    names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(9)), "opacity"]
    names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    values = [0.0, 0, 0, *DC, *REST.T.reshape(-1), 9.0, *[math.log(0.1)] * 3, 1.0, 0, 0, 0]
    head = "".join(f"property float {name}\n" for name in names)
    numbers = " ".join(f"{value:.9g}" for value in values)
    path.write_text(f"ply\nformat ascii 1.0\nelement vertex 1\n{head}end_header\n{numbers}\n")


def expected(direction: np.ndarray) -> np.ndarray:
    """Color [3] as the rasterizer of 3D Gaussian Splatting computes it from a direction in the file's axes."""
    x, y, z = direction / np.linalg.norm(direction)
    return 0.5 + C0 * DC + C1 * (-y * REST[0] + z * REST[1] - x * REST[2])


@pytest.mark.slow
@given(
    elevation=st.floats(-40, 40), azimuth=st.floats(0, 360), seen_from=st.tuples(st.floats(-70, 70), st.floats(0, 360))
)
@settings(max_examples=25, deadline=None)
def test_a_camera_sees_the_color_that_the_system_sees(
    tmp_path_factory: pytest.TempPathFactory, elevation: float, azimuth: float, seen_from: tuple[float, float]
) -> None:
    """LGM's frame: the condition camera, which is anywhere in the world, is on the file's z axis."""
    path = tmp_path_factory.mktemp("colors") / "a.ply"
    write(path)
    to_file = Rotation.from_euler("x", elevation, degrees=True) * Rotation.from_euler("y", -azimuth, degrees=True)
    condition = orbit_c2w(elevation, azimuth, 1.5)
    np.testing.assert_allclose(to_file.apply(condition[:3, 3]), [0, 0, 1.5], atol=1e-12)
    camera = orbit_c2w(*seen_from, 1.5)
    content = read_splats(path, Cpu(), "harmonics").moved(to_world(FRAMES["lgm"], Condition.of(condition, 49.1), False))
    drawn = content.draw(Cameras(torch.from_numpy(camera).float()[None, None], 49.1, 33, 33))
    middle = (drawn.rgb / drawn.alpha)[0, :, 16, 16].numpy()
    np.testing.assert_allclose(middle, expected(to_file.apply(-camera[:3, 3])), atol=2e-3)
