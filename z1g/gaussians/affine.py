"""Gaussians under linear maps: what becomes of a splat when its object is stretched, turned or mirrored."""

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from z1g.gaussians.channels import CHANNELS, join, split
from z1g.gaussians.rotations import multiply, quaternions, rotation_matrices

SWEEPS = 5
"""Rounds over the pairs of axes. Convergence is quadratic; tests hold these to 1e-10 in float64."""
PAIRS = ((0, 1), (0, 2), (1, 2))
LEAST = 1e-20
"""Nothing smaller is divided by."""


def transformed(gaussians: Tensor, maps: Tensor) -> Tensor:
    """Activated Gaussians [B,N,14] under linear maps [B,3,3] of space, which may mirror but not flatten it.

    Positions are mapped; the covariance becomes M·Σ·Mᵀ, whose axes and standard deviations are the left singular
    vectors and the singular values of M·R·diag(s). Opacities and colors stay.
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

    The order is that of the columns, not of size. One-sided Jacobi rotations (Hestenes 1958), elementwise
    operations on all matrices at once; small singular values keep their relative precision.
    """
    columns = list(matrices.unbind(-1))
    for _ in range(SWEEPS):
        for i, j in PAIRS:
            columns[i], columns[j] = _made_orthogonal(columns[i], columns[j])
    lengths = torch.stack([torch.linalg.vector_norm(column, dim=-1) for column in columns], dim=-1)
    a, b = (functional.normalize(column, dim=-1, eps=LEAST) for column in columns[:2])
    return torch.stack([a, b, torch.linalg.cross(a, b)], dim=-1), lengths


def _made_orthogonal(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Two vectors [...,3] turned in their plane of columns until their product is zero."""
    difference = (q.square().sum(-1) - p.square().sum(-1))[..., None]
    twice = 2 * (p * q).sum(-1, keepdim=True)
    sign = torch.where(difference < 0, -1.0, 1.0)
    tangent = sign * twice / (difference.abs() + torch.hypot(difference, twice)).clamp(min=LEAST)
    cosine = torch.rsqrt(1 + tangent.square())
    sine = cosine * tangent
    return cosine * p - sine * q, sine * p + cosine * q


def transform(gaussians: Tensor, matrix: NDArray[np.float64]) -> Tensor:
    """Gaussians [N,14] moved by a rigid transform [4,4]: positions and quaternions change, the rest stays."""
    exact = torch.from_numpy(matrix[:3, :3].copy())
    rotation, turn = exact.to(gaussians), quaternions(exact).to(gaussians)
    result = gaussians.clone()
    position = gaussians[:, CHANNELS["position"]]
    result[:, CHANNELS["position"]] = position @ rotation.T + torch.from_numpy(matrix[:3, 3].copy()).to(gaussians)
    result[:, CHANNELS["rotation"]] = multiply(turn.expand(len(gaussians), 4), gaussians[:, CHANNELS["rotation"]])
    return result
