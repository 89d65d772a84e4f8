"""Plain torch blending (Kerbl et al. 2023, eq. 3)."""

from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from z1g.gaussians.channels import MIN_ALPHA
from z1g.geometry.camera import Cameras
from z1g.render.base import Conventions, RenderOutput
from z1g.render.projection import MIN_TRANSMITTANCE, Projected, project

TILE = 16
"""Side in pixels of the tiles, which bound the memory. 3DGS clips its footprints to the same tiles."""


@dataclass(frozen=True)
class _Layers:
    """Gaussians of one image, nearest first: extent and mean [N,2], radius [N,1], and so on."""

    extent: Tensor
    radius: Tensor
    mean: Tensor
    conic: Tensor
    opacity: Tensor
    features: Tensor


def draw(
    gaussians: Tensor, cameras: Cameras, conventions: Conventions, precision: Literal["float32", "float64"]
) -> RenderOutput:
    """Render [B,N,14] from [B,V] cameras; the result has the type of `gaussians`."""
    dtype = getattr(torch, precision)
    # Autocast would compute poses and positions in half precision.
    with torch.autocast(gaussians.device.type, enabled=False):
        seen = project(gaussians.to(dtype), replace(cameras, c2w=cameras.c2w.detach().to(dtype)), conventions)
        b, v = cameras.c2w.shape[:2]
        size = cameras.height, cameras.width
        images = [_image(_layers(seen, i, j), *size, conventions) for i in range(b) for j in range(v)]
    stacked = torch.stack(images).unflatten(0, (b, v)).movedim(-1, 2).to(gaussians.dtype)
    return RenderOutput(stacked[:, :, :3], stacked[:, :, 3:4], stacked[:, :, 4:5])


def _layers(seen: Projected, i: int, j: int) -> _Layers:
    """The Gaussians of object i in view j, sorted by depth."""
    depth, extent = seen.depth[i, j], seen.extent[i, j].T
    order = depth.argsort(stable=True)
    order = order[extent[order, 0] > 0]
    features = torch.cat([seen.rgb[i].T, torch.ones_like(depth)[:, None], depth[:, None]], dim=1)
    everything = _Layers(
        extent, seen.radius[i, j, :, None], seen.mean[i, j].T, seen.conic[i, j].T, seen.opacity[i], features
    )
    return _pick(everything, order)


def _pick(layers: _Layers, which: Tensor) -> _Layers:
    return _Layers(**{field.name: getattr(layers, field.name)[which] for field in fields(_Layers)})


def _image(layers: _Layers, height: int, width: int, conventions: Conventions) -> Tensor:
    """One image [H,W,5], tile by tile."""
    rows = []
    for top in range(0, height, TILE):
        y = torch.arange(top, min(top + TILE, height)).to(layers.mean) + 0.5
        row = []
        for left in range(0, width, TILE):
            x = torch.arange(left, min(left + TILE, width)).to(layers.mean) + 0.5
            row.append(_tile(layers, x, y, conventions))
        rows.append(torch.cat(row, dim=1))
    return torch.cat(rows, dim=0)


def _tile(layers: _Layers, x: Tensor, y: Tensor, conventions: Conventions) -> Tensor:
    """Pixels [h,w,5] with centers at columns x [w] and rows y [h]; recomputed in the backward pass to save memory."""
    first, last = torch.stack([x[0], y[0]]), torch.stack([x[-1], y[-1]])
    # A Gaussian is not drawn outside of its box, where its alpha is below 1/255.
    touches = ((layers.mean + layers.extent >= first) & (layers.mean - layers.extent <= last)).all(dim=1)
    near = _pick(layers, touches & _in_square(layers, first))
    arguments = x, y, near.mean, near.conic, near.opacity, near.features, conventions
    if not torch.is_grad_enabled():
        return _blend(*arguments)
    pixels: Tensor = checkpoint(_blend, *arguments, use_reentrant=False, preserve_rng_state=False)
    return pixels


def _in_square(layers: _Layers, first: Tensor) -> Tensor:
    """Mask [N] of squares with half side `radius` that touch the tile at pixel center `first` (3DGS, getRect)."""
    # In 3DGS the first pixel's center has coordinate 0.
    center, tile = layers.mean - 0.5, ((first - 0.5) / TILE).round()
    from_tile = ((center - layers.radius) / TILE).floor()
    to_tile = ((center + layers.radius + TILE - 1) / TILE).floor()
    return ((from_tile <= tile) & (tile < to_tile)).all(dim=1)


def _blend(
    x: Tensor, y: Tensor, mean: Tensor, conic: Tensor, opacity: Tensor, features: Tensor, conventions: Conventions
) -> Tensor:
    """Features [h,w,5] of Gaussians in depth order: weights alpha_i·Π_{j<i}(1 - alpha_j), up to MIN_TRANSMITTANCE."""
    dx, dy = x[None, :, None] - mean[:, 0], y[:, None, None] - mean[:, 1]
    power = -0.5 * (conic[:, 0] * dx * dx + conic[:, 2] * dy * dy) - conic[:, 1] * dx * dy
    uncapped = opacity * power.clamp(max=0).exp()
    alpha = uncapped.clamp(max=conventions.alpha_cap)
    if conventions.cap_gradient == "pass":
        alpha = uncapped + (alpha - uncapped).detach()
    alpha = torch.where(alpha >= MIN_ALPHA, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, dim=-1)
    before = torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], dim=-1)[..., : after.shape[-1]]
    weight = torch.where(after > MIN_TRANSMITTANCE, alpha * before, torch.zeros_like(alpha))
    return weight @ features
