"""Orientation of flat Gaussians on the surface of a depth map."""

import torch
import torch.nn.functional as functional
from torch import Tensor

EDGE = 4.0
"""Neighbors farther apart than this multiple of the median spacing belong to different surfaces."""


def surface_normals(position: Tensor, covered: Tensor, directions: Tensor) -> Tensor:
    """Unit normals [V,3,S,S] that point toward the camera.

    position: [V,3,S,S], world-space points of the pixels. covered: [V,1,S,S]. directions: [V,3,S,S], ray directions. If
    a pixel has no neighbor on its surface along x or y, its normal is the direction to the camera.
    """
    to_camera = -functional.normalize(directions, dim=1)
    along_x, has_x = _slope(position, covered, dim=3)
    along_y, has_y = _slope(position, covered, dim=2)
    normals = functional.normalize(torch.cross(along_y, along_x, dim=1), dim=1)
    valid = has_x & has_y & (normals.norm(dim=1, keepdim=True) > 0.5)
    normals = torch.where(valid, normals, to_camera)
    return torch.where((normals * to_camera).sum(dim=1, keepdim=True) < 0, -normals, normals)


def disc_rotation(normals: Tensor, forward: Tensor) -> Tensor:
    """Quaternions [V,4,S,S], w first, that rotate the z axis to the normals [V,3,S,S] or their opposites.

    The rotation is the product of a rotation to the camera's viewing direction `forward` [V,3], the same for the whole
    image, and the smallest rotation from there to the normal. Discs have two equal sides and visible normals are within
    90 degrees of the camera, so quaternions of a smooth surface are smooth, which stage 1 has to predict.
    """
    axis = torch.where(forward[:, 2:] < 0, -forward, forward)
    base = _smallest_rotation(torch.tensor([0.0, 0.0, 1.0]).to(axis).expand_as(axis), axis)[:, :, None, None]
    axis = axis[:, :, None, None].expand_as(normals)
    away = (normals * axis).sum(dim=1, keepdim=True) < 0
    return functional.normalize(_product(_smallest_rotation(axis, torch.where(away, -normals, normals)), base), dim=1)


def _smallest_rotation(start: Tensor, end: Tensor) -> Tensor:
    """Unnormalized quaternions along dim 1 that rotate unit vectors `start` to `end`, at most 90 degrees apart."""
    return torch.cat([1 + (start * end).sum(dim=1, keepdim=True), torch.cross(start, end, dim=1)], dim=1)


def _product(p: Tensor, q: Tensor) -> Tensor:
    """Hamilton product of quaternions along dim 1: first q, then p."""
    (pw, p_axis), (qw, q_axis) = ((x[:, :1], x[:, 1:]) for x in torch.broadcast_tensors(p, q))
    w = pw * qw - (p_axis * q_axis).sum(dim=1, keepdim=True)
    return torch.cat([w, pw * q_axis + qw * p_axis + torch.cross(p_axis, q_axis, dim=1)], dim=1)


def _slope(position: Tensor, covered: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Mean difference to the covered neighbors before and after along `dim`, and a mask of pixels that have any."""
    size = position.shape[dim]
    step = position.narrow(dim, 1, size - 1) - position.narrow(dim, 0, size - 1)
    both = covered.narrow(dim, 1, size - 1) & covered.narrow(dim, 0, size - 1)
    length = step.norm(dim=1, keepdim=True)
    typical = length[both].median() if both.any() else torch.zeros((), device=length.device)
    both = both & (length < EDGE * typical)
    step = torch.where(both, step, 0)
    before, after = ([0, 0] * (3 - dim) + pad for pad in ([1, 0], [0, 1]))
    n = functional.pad(both.float(), before) + functional.pad(both.float(), after)
    total = functional.pad(step, before) + functional.pad(step, after)
    return total / n.clamp(min=1), n > 0
