"""Gaussians that lie flat on the surface which a depth map shows."""

import torch
import torch.nn.functional as functional
from torch import Tensor

EDGE = 4.0
"""Neighbors further apart than this many median spacings belong to different surfaces."""


def surface_normals(position: Tensor, covered: Tensor, directions: Tensor) -> Tensor:
    """Unit normals [V,3,S,S] on the camera's side of the surface.

    position: [V,3,S,S] points that pixels show, world. covered: [V,1,S,S]. directions: [V,3,S,S] rays away from the
    camera. Where a pixel has no neighbor on its surface along x or y, the normal points at the camera.
    """
    towards = -functional.normalize(directions, dim=1)
    along_x, has_x = _slope(position, covered, dim=3)
    along_y, has_y = _slope(position, covered, dim=2)
    normals = functional.normalize(torch.cross(along_y, along_x, dim=1), dim=1)
    known = has_x & has_y & (normals.norm(dim=1, keepdim=True) > 0.5)
    normals = torch.where(known, normals, towards)
    return torch.where((normals * towards).sum(dim=1, keepdim=True) < 0, -normals, normals)


def disc_rotation(normals: Tensor, forward: Tensor) -> Tensor:
    """Quaternions [V,4,S,S], w first, that bring the z axis onto normals [V,3,S,S] or their opposite.

    First onto the camera's line of sight `forward` [V,3], the same turn for a whole image, then by the smallest turn
    onto the normal. A disc has no front and every visible normal is within 90 degrees of the camera, so the quaternions
    of a smooth surface are smooth: stage 1 has to predict them.
    """
    ahead = torch.where(forward[:, 2:] < 0, -forward, forward)
    base = _smallest_turn(torch.tensor([0.0, 0.0, 1.0]).to(ahead).expand_as(ahead), ahead)[:, :, None, None]
    ahead = ahead[:, :, None, None].expand_as(normals)
    back = (normals * ahead).sum(dim=1, keepdim=True) < 0
    return functional.normalize(_product(_smallest_turn(ahead, torch.where(back, -normals, normals)), base), dim=1)


def _smallest_turn(start: Tensor, end: Tensor) -> Tensor:
    """Quaternions along dim 1 that turn unit vectors `start` into `end`, at most 90 degrees away; not normalized."""
    return torch.cat([1 + (start * end).sum(dim=1, keepdim=True), torch.cross(start, end, dim=1)], dim=1)


def _product(p: Tensor, q: Tensor) -> Tensor:
    """Hamilton product of quaternions along dim 1: first q, then p."""
    (pw, p_axis), (qw, q_axis) = ((x[:, :1], x[:, 1:]) for x in torch.broadcast_tensors(p, q))
    w = pw * qw - (p_axis * q_axis).sum(dim=1, keepdim=True)
    return torch.cat([w, pw * q_axis + qw * p_axis + torch.cross(p_axis, q_axis, dim=1)], dim=1)


def _slope(position: Tensor, covered: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Mean step to the covered neighbors before and after along `dim`, and whether there is any on this surface."""
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
