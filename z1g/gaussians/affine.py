"""Linear maps of Gaussians: stretching, rotation and mirroring of objects."""

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from z1g.gaussians.channels import CHANNELS, join, split
from z1g.gaussians.rotations import multiply, quaternions, rotation_matrices

SWEEPS = 5
"""Iterations over the pairs of axes. Convergence is quadratic; tests require 1e-10 in float64."""
PAIRS = ((0, 1), (0, 2), (1, 2))
EPSILON = 1e-20
"""Smallest divisor."""


def transformed(gaussians: Tensor, maps: Tensor) -> Tensor:
    """Apply invertible linear maps [B,3,3] to activated Gaussians [B,N,14].

    Positions are mapped; the covariance becomes M·Σ·Mᵀ, whose axes and standard deviations are the left singular
    vectors and the singular values of M·R·diag(s). Opacities and colors do not change.
    """
    parts = split(gaussians, dim=-1)
    maps = maps.to(gaussians)
    axes = rotation_matrices(parts["rotation"].transpose(1, 2)).permute(0, 3, 1, 2)
    spread = maps[:, None] @ (axes * parts["scale"][..., None, :])
    turned, scale = left_singular(spread)
    position = parts["position"] @ maps.transpose(1, 2)
    return join({**parts, "position": position, "scale": scale, "rotation": quaternions(turned)}, dim=-1)


def left_singular(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors [...,3,3], as proper rotations, and singular values [...,3] of regular 3×3 matrices.

    They are in the order of the columns, not sorted. One-sided Jacobi rotations (Hestenes 1958) in elementwise
    operations on all matrices; small singular values keep their relative precision.
    """
    columns = list(matrices.unbind(-1))
    for _ in range(SWEEPS):
        for i, j in PAIRS:
            columns[i], columns[j] = _orthogonalized(columns[i], columns[j])
    lengths = torch.stack([torch.linalg.vector_norm(column, dim=-1) for column in columns], dim=-1)
    a, b = (functional.normalize(column, dim=-1, eps=EPSILON) for column in columns[:2])
    return torch.stack([a, b, torch.linalg.cross(a, b)], dim=-1), lengths


def _orthogonalized(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate two columns [...,3] against each other so that their inner product is zero."""
    difference = (q.square().sum(-1) - p.square().sum(-1))[..., None]
    twice = 2 * (p * q).sum(-1, keepdim=True)
    sign = torch.where(difference < 0, -1.0, 1.0)
    tangent = sign * twice / (difference.abs() + torch.hypot(difference, twice)).clamp(min=EPSILON)
    cosine = torch.rsqrt(1 + tangent.square())
    sine = cosine * tangent
    return cosine * p - sine * q, sine * p + cosine * q


def transform(gaussians: Tensor, matrix: NDArray[np.float64]) -> Tensor:
    """Apply a rigid transform [4,4] to the positions and quaternions of Gaussians [N,14]."""
    return _moved(gaussians, matrix, quaternions(torch.from_numpy(matrix[:3, :3].copy())))


def transform_back(gaussians: Tensor, matrix: NDArray[np.float64]) -> Tensor:
    """Inverse of `transform`, also for the signs of quaternions, which `transform` by the inverse matrix may flip.

    Half a turn twice is a whole turn, and its quaternion is -1.
    """
    turn = quaternions(torch.from_numpy(matrix[:3, :3].copy()))
    conjugate = turn * turn.new_tensor([1.0, -1, -1, -1]) + 0.0  # without negative zeros
    return _moved(gaussians, np.linalg.inv(matrix).astype(np.float64), conjugate)


def _moved(gaussians: Tensor, matrix: NDArray[np.float64], turn: Tensor) -> Tensor:
    """Gaussians [N,14] after a rigid transform [4,4]; `turn` [4]: the quaternion of its rotation, with either sign."""
    rotation = torch.from_numpy(matrix[:3, :3].copy()).to(gaussians)
    result = gaussians.clone()
    position = gaussians[:, CHANNELS["position"]]
    result[:, CHANNELS["position"]] = position @ rotation.T + torch.from_numpy(matrix[:3, 3].copy()).to(gaussians)
    several = turn.to(gaussians).expand(len(gaussians), 4)
    result[:, CHANNELS["rotation"]] = multiply(several, gaussians[:, CHANNELS["rotation"]])
    return result
