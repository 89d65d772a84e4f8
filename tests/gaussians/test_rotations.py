"""Quaternions of rotation matrices, one and many."""

import numpy as np
import pytest
import torch
from support.gaussians import rotation_of

from z1g.gaussians.rotations import quaternion, quaternions, rotation_matrices


def test_quaternions_of_half_turns() -> None:
    """Where w is zero the other components carry the rotation."""
    given_quaternions = torch.eye(4, dtype=torch.float64)
    matrices = rotation_matrices(given_quaternions[..., None]).squeeze(-1)
    assert torch.allclose(quaternions(matrices).abs(), given_quaternions)


@pytest.mark.parametrize("matrix", [np.eye(3), np.diag([1.0, -1, -1]), np.diag([-1.0, -1, 1]), np.diag([-1.0, 1, -1])])
def test_quaternion_of_half_turns(matrix: np.ndarray) -> None:
    np.testing.assert_allclose(rotation_of(quaternion(matrix)[None])[0], matrix, atol=1e-12)
