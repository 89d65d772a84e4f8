"""Quaternions and matrices, against scipy and an eigenvalue method."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from z1g.gaussians.rotations import multiply, quaternions, rotation_matrices

HALF_TURNS = [np.diag([1.0, -1, -1]), np.diag([-1.0, -1, 1]), np.diag([-1.0, 1, -1])]


def rotations(seed: int, n: int = 500) -> Rotation:
    """Random rotations, some with angles close to 0 and some close to 180 degrees."""
    draw = np.random.default_rng(seed)
    little = 10.0 ** -draw.uniform(1, 15, (2, n))
    angles = np.concatenate([draw.uniform(0, np.pi, n), little[0], np.pi - little[1]])
    axes = draw.normal(size=(3 * n, 3))
    return Rotation.from_rotvec(angles[:, None] * axes / np.linalg.norm(axes, axis=1, keepdims=True))


def w_first(turns: Rotation) -> np.ndarray:
    return np.roll(turns.as_quat(), 1, axis=1)


def by_eigenvector(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternion [4], w first, of the rotation nearest to a matrix [3,3] (Bar-Itzhack 2000)."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    k = np.array(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ]
    )
    return np.linalg.eigh(k / 3)[1][:, -1]


def test_matrices_are_those_of_scipy() -> None:
    turns = rotations(0)
    given = torch.from_numpy(w_first(turns)).T[None]
    for factor, normalize in ((1.0, False), (3.0, True)):
        matrices = rotation_matrices(factor * given, normalize)[0].permute(2, 0, 1)
        np.testing.assert_allclose(matrices.numpy(), turns.as_matrix(), atol=1e-14)


def test_quaternions_are_those_of_scipy() -> None:
    turns = rotations(1)
    q = quaternions(torch.from_numpy(turns.as_matrix())).numpy()
    expected = w_first(turns)
    expected *= np.sign((q * expected).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(q, expected, atol=1e-12)
    assert (np.take_along_axis(q, np.abs(q).argmax(axis=1)[:, None], axis=1) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(q, axis=1), 1, atol=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_quaternions_are_eigenvectors(seed: int) -> None:
    for matrix in [*rotations(seed, 10).as_matrix(), np.eye(3), *HALF_TURNS]:
        q, expected = quaternions(torch.from_numpy(matrix)).numpy(), by_eigenvector(matrix)
        np.testing.assert_allclose(q, expected * np.sign(q @ expected), atol=1e-12)


@pytest.mark.parametrize("matrix", [np.eye(3), *HALF_TURNS])
def test_half_turns_round_trip_exactly(matrix: np.ndarray) -> None:
    q = quaternions(torch.from_numpy(matrix))
    assert (rotation_matrices(q[None, :, None], normalize=False)[0, :, :, 0].numpy() == matrix).all()


def test_products_compose_rotations() -> None:
    first, second = rotations(3), rotations(4)
    left, right = (torch.from_numpy(w_first(turns)) for turns in (first, second))
    matrices = rotation_matrices(multiply(left, right).T[None])[0].permute(2, 0, 1)
    np.testing.assert_allclose(matrices.numpy(), (first * second).as_matrix(), atol=1e-13)
