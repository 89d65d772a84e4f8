"""Projection of Gaussians onto image planes, in torch, differentiable (EWA splatting)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from z1g.camera import Cameras
from z1g.splat import split

LOW_PASS_PX2 = 0.3
"""Added to the diagonal of every 2D covariance: at least about half a pixel wide."""
FOV_CLAMP = 1.3
"""The projection is linearised no further out than this many half fields of view."""
MIN_ALPHA = 1 / 255
MIN_TRANSMITTANCE = 1e-4


@dataclass(frozen=True)
class Projected:
    """Gaussians seen by V cameras.

    mean: [B,V,N,2] pixels, x then y. conic: [B,V,N,3], inverse 2D covariance (xx, xy, yy). extent: [B,V,N,2], half
    width and height of the box outside of which alpha is below 1/255, not differentiable; 0 where nothing is drawn.
    depth: [B,V,N], camera z. opacity: [B,N]. rgb: [B,N,3].
    """

    mean: Tensor
    conic: Tensor
    extent: Tensor
    depth: Tensor
    opacity: Tensor
    rgb: Tensor


def project(gaussians: Tensor, cameras: Cameras, near: float) -> Projected:
    """Project activated Gaussians [B,N,14]; those not finite or nearer than `near` are not drawn and get no gradient.

    Source: Zwicker et al. 2001, eq. 31 (covariance J W Σ Wᵀ Jᵀ), with clamp and low-pass of 3DGS (Kerbl et al. 2023).
    """
    gaussians, usable = _finite(gaussians)
    parts = split(gaussians, dim=2)
    w2c = cameras.world_to_camera().to(gaussians)
    rotation, translation = w2c[..., :3, :3], w2c[..., :3, 3]
    x, y, z = (torch.einsum("bvij,bnj->bvin", rotation, parts["position"]) + translation[..., None]).unbind(2)
    usable = usable[:, None] & (z.detach() > near)
    z = torch.where(usable, z, torch.ones_like(z))
    focal = cameras.focal
    slope_x, slope_y = x / z, y / z
    limit_x = FOV_CLAMP * 0.5 * cameras.width / focal
    limit_y = FOV_CLAMP * 0.5 * cameras.height / focal
    row_x, row_y, row_z = (rotation[:, :, i, None, :] for i in range(3))
    scale = (focal / z)[..., None]
    jacobian_x = scale * (row_x - slope_x.clamp(-limit_x, limit_x)[..., None] * row_z)
    jacobian_y = scale * (row_y - slope_y.clamp(-limit_y, limit_y)[..., None] * row_z)
    axes = rotation_matrices(parts["rotation"]) * parts["scale"][:, :, None, :]
    half_x = _times_matrix(jacobian_x, axes)
    half_y = _times_matrix(jacobian_y, axes)
    xx = half_x.square().sum(-1) + LOW_PASS_PX2
    yy = half_y.square().sum(-1) + LOW_PASS_PX2
    xy = (half_x * half_y).sum(-1)
    determinant = xx * yy - xy * xy
    usable = usable & (determinant.detach() > 0)
    determinant = torch.where(usable, determinant, torch.ones_like(determinant))
    opacity = parts["opacity"][..., 0]
    mean = torch.stack([focal * slope_x + cameras.width / 2, focal * slope_y + cameras.height / 2], dim=-1)
    conic = torch.stack([yy / determinant, -xy / determinant, xx / determinant], dim=-1)
    extent = _extent(xx, yy, opacity, usable)
    return Projected(mean, conic, extent, z, opacity, parts["rgb"])


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """Rotation matrices [...,3,3] of quaternions [...,4], w first, normalised here."""
    w, x, y, z = functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _finite(gaussians: Tensor) -> tuple[Tensor, Tensor]:
    usable = torch.isfinite(gaussians.detach()).all(dim=-1)
    harmless = torch.zeros(gaussians.shape[-1], dtype=gaussians.dtype, device=gaussians.device)
    harmless[7] = 1
    return torch.where(usable[..., None], gaussians, harmless), usable


def _times_matrix(rows: Tensor, matrices: Tensor) -> Tensor:
    """rows [B,V,N,3] times matrices [B,N,3,3], written out: a batched product of 3x3 matrices is slower on a CPU."""
    columns = matrices[:, None]
    return sum(
        (rows[..., i, None] * columns[..., i, :] for i in range(1, 3)), start=rows[..., 0, None] * columns[..., 0, :]
    )


@torch.no_grad()
def _extent(xx: Tensor, yy: Tensor, opacity: Tensor, usable: Tensor) -> Tensor:
    """Half size of the box in which opacity·exp(-q/2) reaches 1/255: sqrt(q·variance) with q = 2·ln(255·opacity)."""
    reach = (2 * torch.log((opacity / MIN_ALPHA).clamp(min=1e-12)))[:, None]
    usable = usable & (reach > 0)
    box = torch.stack([xx, yy], dim=-1) * reach.clamp(min=0)[..., None]
    extent = torch.where(usable[..., None], box.sqrt(), torch.zeros_like(box))
    return torch.where(torch.isfinite(extent), extent, torch.full_like(extent, 1e9))
