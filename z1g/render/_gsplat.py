"""One call of gsplat's kernels, and what they need around them."""

from typing import Any

import torch
from torch import Tensor

from z1g.geometry.camera import Cameras
from z1g.render._pixels import pixels
from z1g.render._separate import WithDepth, separated
from z1g.render.base import RenderOutput

LARGE_TILE, SMALL_TILE = 16, 8
"""Sides of the tiles of pixels that gsplat sorts Gaussians into; images are the same with both."""
CROWDED = 200
"""Gaussians for each large tile from which images are faster with small ones."""


def draw(gsplat: Any, gaussians: Tensor, cameras: Cameras, near: float) -> RenderOutput:
    """Render Gaussians [B,N,14] from [B,V] cameras, both float32 on one device, with the package gsplat.

    These are the steps of its `rasterization(render_mode="RGB+D", packed=False)`, with fewer kernels around them.
    """
    b, v = cameras.c2w.shape[:2]
    width, height = cameras.width, cameras.height
    tile = _tile(gaussians, width, height)
    columns, rows = -(-width // tile), -(-height // tile)
    part = separated(gaussians, v)
    radii, means, depths, conics, _ = gsplat.fully_fused_projection(
        part.position, None, part.rotation, part.scale, cameras.world_to_camera().float(), cameras.intrinsics().float(),
        width, height, near_plane=near, opacities=part.opacity,
    )  # fmt: skip
    # Before `isect_tiles`, which waits for the GPU: what is launched after it is what the GPU waits for.
    colors = WithDepth.apply(part.colors, depths)
    _, pairs, order = gsplat.isect_tiles(means, radii, depths, tile, columns, rows)
    starts = gsplat.isect_offset_encode(pairs, b * v, columns, rows).view(b, v, rows, columns)
    image, alpha = pixels(gsplat, (means, conics, colors, part.opacities), (width, height), tile, starts, order)
    # In gsplat's layout, and not in ours: the image's gradient is then put together once, as gsplat reads it. Slices of
    # the permuted image would each give one of its full size, to be added and copied.
    rgb, depth = image.split([3, 1], dim=-1)
    return RenderOutput(rgb.movedim(-1, 2), alpha.movedim(-1, 2), depth.movedim(-1, 2))


def _tile(gaussians: Tensor, width: int, height: int) -> int:
    """Side of the tiles for Gaussians [B,N,14]: small ones have fewer pixels beyond a Gaussian's edge, and more pairs.

    With gradients they were always faster (6,144 to 98,304 Gaussians, 64² to 512² pixels, H200).
    """
    crowded = gaussians.shape[1] * LARGE_TILE**2 > CROWDED * width * height
    return SMALL_TILE if crowded or (torch.is_grad_enabled() and gaussians.requires_grad) else LARGE_TILE
