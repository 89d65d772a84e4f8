"""Rotations of Gaussians: unit quaternions, w first, and 3x3 matrices."""

import torch
import torch.nn.functional as functional
from torch import Tensor

from z1g.gaussians.channels import CHANNELS


def rotation_matrices(quaternions: Tensor, normalize: bool = True) -> Tensor:
    """Rotation matrices [B,3,3,N] of quaternions [B,4,N], w first; not orthogonal without `normalize`."""
    w, x, y, z = (functional.normalize(quaternions, dim=1) if normalize else quaternions).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def shortest_axes(gaussians: Tensor) -> Tensor:
    """Unit vectors [N,3] along the smallest standard deviation of activated Gaussians [N,14]: normals of flat ones."""
    axes = rotation_matrices(gaussians[:, CHANNELS["rotation"]].T[None])[0].permute(2, 0, 1)
    shortest = gaussians[:, CHANNELS["scale"]].argmin(dim=1)
    return torch.take_along_dim(axes, shortest[:, None, None].expand(-1, 3, 1), dim=2)[..., 0]


def quaternions(rotations: Tensor) -> Tensor:
    """Unit quaternions [...,4], w first, of rotation matrices [...,3,3] (Shepperd 1978).

    The sign is chosen so that the component of largest magnitude is positive.
    """
    a, b, c, d, e, f, g, h, i = rotations.flatten(-2).unbind(-1)
    one = torch.ones_like(a)
    candidates = torch.stack(
        [
            torch.stack([one + a + e + i, h - f, c - g, d - b], dim=-1),
            torch.stack([h - f, one + a - e - i, b + d, c + g], dim=-1),
            torch.stack([c - g, b + d, one - a + e - i, f + h], dim=-1),
            torch.stack([d - b, c + g, f + h, one - a - e + i], dim=-1),
        ],
        dim=-2,
    )
    best = torch.diagonal(candidates, dim1=-2, dim2=-1).argmax(-1)
    chosen = torch.take_along_dim(candidates, best[..., None, None], dim=-2).squeeze(-2)
    return functional.normalize(chosen, dim=-1)


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """Hamilton product of quaternions [N,4], w first."""
    w1, x1, y1, z1 = left.unbind(-1)
    w2, x2, y2, z2 = right.unbind(-1)
    return torch.stack(
        [
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
        ],
        dim=-1,
    )
