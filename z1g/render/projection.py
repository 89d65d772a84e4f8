"""Differentiable projection of Gaussians to ellipses in images, in torch (EWA splatting)."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from z1g.gaussians.channels import CHANNELS, MIN_ALPHA, N_CHANNELS, split
from z1g.gaussians.rotations import rotation_matrices
from z1g.geometry.camera import Cameras
from z1g.render.base import Conventions

LOW_PASS_PX2 = 0.3
"""Added to the diagonal of every 2D covariance, for a width of at least about half a pixel."""
FOV_CLAMP = 1.3
"""Multiple of half the field of view to which the point of linearization is clamped."""
MIN_TRANSMITTANCE = 1e-4
"""A Gaussian that would reduce a pixel's transmittance to this or less is not drawn and ends the pixel."""
LARGEST = 1e9
"""Larger magnitudes count as not finite: their products would overflow float32."""


@dataclass(frozen=True)
class Projected:
    """Gaussians projected to V cameras.

    mean: [B,V,2,N] pixels, x then y. conic: [B,V,3,N], inverse 2D covariance (xx, xy, yy). extent: [B,V,2,N], half
    width and height of the box outside of which alpha is below 1/255, not differentiable; 0 for what is not drawn.
    radius: [B,V,N] pixels, of the square whose tiles a Gaussian is drawn in; infinite for an exact footprint.
    depth: [B,V,N], camera z. opacity: [B,N]. rgb: [B,3,N].
    """

    mean: Tensor
    conic: Tensor
    extent: Tensor
    radius: Tensor
    depth: Tensor
    opacity: Tensor
    rgb: Tensor


def project(gaussians: Tensor, cameras: Cameras, conventions: Conventions) -> Projected:
    """Project activated Gaussians [B,N,14]; those that are not finite or too near are not drawn and get no gradient.

    Source: Zwicker et al. 2001, eq. 31 (covariance J W Σ Wᵀ Jᵀ), with clamp and low-pass of 3DGS (Kerbl et al. 2023).
    With Σ = A Aᵀ the rows of J W A are `half_x` and `half_y`, and the covariance holds their inner products.
    """
    # Channel-first layout: elementwise operations on [..., N] are several times faster than on [..., N, 3].
    channels, usable = finite(gaussians.transpose(1, 2).contiguous(), dim=1)
    parts = split(channels, dim=1)
    axes = rotation_matrices(parts["rotation"], conventions.normalize_rotation) * parts["scale"][:, None]
    x, y, z, axes_x, axes_y, axes_z = _to_camera(parts["position"], axes, cameras)
    usable = usable[:, None] & (z.detach() > conventions.near)
    z = torch.where(usable, z, torch.ones_like(z))
    focal, height, width = cameras.focal, cameras.height, cameras.width
    slope_x, slope_y = x / z, y / z
    scale = (focal / z)[:, :, None]
    half_x = scale * (axes_x - _clamp(slope_x, width / focal)[:, :, None] * axes_z)
    half_y = scale * (axes_y - _clamp(slope_y, height / focal)[:, :, None] * axes_z)
    round_x, round_y = half_x.square().sum(2), half_y.square().sum(2)
    xx, yy, xy = round_x + LOW_PASS_PX2, round_y + LOW_PASS_PX2, (half_x * half_y).sum(2)
    # xx·yy - xy² by Lagrange's identity: the difference of large numbers would lose thin Gaussians in float32.
    determinant = _cross_squared(half_x, half_y) + LOW_PASS_PX2 * (round_x + round_y) + LOW_PASS_PX2**2
    opacity = parts["opacity"][:, 0]
    mean = torch.stack([focal * slope_x + width / 2, focal * slope_y + height / 2], dim=2)
    conic = torch.stack([yy / determinant, -xy / determinant, xx / determinant], dim=2)
    extent = _extent(xx, yy, opacity, usable)
    radius = _three_sigma(xx, yy, xy) if conventions.footprint == "three_sigma" else z.new_full((), torch.inf)
    return Projected(mean, conic, extent, radius.expand_as(z), z, opacity, parts["rgb"])


def finite(gaussians: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Gaussians with 14 channels along `dim`, made transparent where they are not finite, and the mask of finite ones.

    The transparent ones get no gradient, and kernels need no checks.
    """
    usable = all_finite(gaussians, dim)
    shape = [-1 if i == dim else 1 for i in range(gaussians.dim())]
    blank = transparent(gaussians.dtype, gaussians.device).view(shape)
    return torch.where(usable.unsqueeze(dim), gaussians, blank), usable


def all_finite(gaussians: Tensor, dim: int) -> Tensor:
    """Mask of the Gaussians whose 14 channels along `dim` are all finite; it lacks that dimension."""
    # The norm is NaN if any channel is NaN, and then the comparison is false.
    largest: Tensor = torch.linalg.vector_norm(gaussians.detach(), torch.inf, dim=dim)
    return largest < LARGEST


@lru_cache(maxsize=8)
def transparent(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Channels [14] of a Gaussian that is not drawn."""
    channels = torch.zeros(N_CHANNELS, dtype=dtype)
    channels[CHANNELS["rotation"].start] = 1
    return channels.to(device)


def _to_camera(position: Tensor, axes: Tensor, cameras: Cameras) -> tuple[Tensor, ...]:
    """Camera-space x, y, z [B,V,N] of the centers [B,3,N], then of the axes [B,3,3,N], each [B,V,3,N]."""
    w2c = cameras.world_to_camera().to(position)
    b, v = w2c.shape[:2]
    world = torch.cat([position[:, :, None], axes], dim=2)
    rotated = (w2c[..., :3, :3].flatten(1, 2) @ world.flatten(2)).view(b, v, 3, 4, -1)
    centers = rotated[:, :, :, 0] + w2c[..., :3, 3:]
    return (*centers.unbind(2), *rotated[:, :, :, 1:].unbind(2))


def _clamp(slope: Tensor, field: float) -> Tensor:
    limit = FOV_CLAMP * 0.5 * field
    return slope.clamp(-limit, limit)


def _cross_squared(u: Tensor, v: Tensor) -> Tensor:
    """|u × v|² of vectors along dim 2."""
    (u0, u1, u2), (v0, v1, v2) = u.unbind(2), v.unbind(2)
    return (u1 * v2 - u2 * v1).square() + (u2 * v0 - u0 * v2).square() + (u0 * v1 - u1 * v0).square()


@torch.no_grad()
def _extent(xx: Tensor, yy: Tensor, opacity: Tensor, usable: Tensor) -> Tensor:
    """Half size of the box in which opacity·exp(-q/2) reaches 1/255: sqrt(q·variance) with q = 2·ln(255·opacity)."""
    reach = (2 * torch.log((opacity / MIN_ALPHA).clamp(min=1e-12)))[:, None]
    box = torch.stack([xx, yy], dim=2) * reach.clamp(min=0)[:, :, None]
    drawn = (usable & (reach > 0))[:, :, None]
    return torch.where(drawn, box.sqrt(), torch.zeros_like(box))


@torch.no_grad()
def _three_sigma(xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    """Three standard deviations along the longest axis, in whole pixels, with 3DGS's minimal spread (forward.cu)."""
    # 3DGS computes mean² - determinant, which is equal but overflows earlier.
    spread = ((0.5 * (xx - yy)).square() + xy.square()).clamp(min=0.1).sqrt()
    return (3 * (0.5 * (xx + yy) + spread).sqrt()).ceil()
