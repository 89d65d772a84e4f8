"""Pixels of sorted Gaussians: gsplat's kernel draws them, and one of ours computes the gradient.

gsplat's kernel of the gradient has a thread for each pixel and sums ten values over the threads of a warp for each
Gaussian, one after the other. Ours (`_pixels.cu`) has two pixels a thread, and sums all ten at once.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

log = logging.getLogger("z1g")
SOURCE = Path(__file__).with_name("_pixels.cu")
SIDE = 8
"""Side of the tiles that the kernel is for, pixels."""
WARPS = 4
"""Tiles of a block of threads."""
FEW = 2048
"""Number of tiles up to which a pass takes as long as its launches do, and gsplat launches its own gradient sooner."""
Projected = tuple[Tensor, Tensor, Tensor, Tensor]
"""Means [B,V,N,2] in pixels, inverse covariances [B,V,N,3], colors [B,V,N,4] and opacities [B,V,N]."""
VERSIONS, DRAW = "1.5.", "rasterize_to_pixels_3dgs_fwd"
"""Versions of gsplat whose kernel of this name is known."""


def pixels(
    gsplat: Any, gaussians: Projected, size: tuple[int, int], tile: int, starts: Tensor, order: Tensor
) -> tuple[Tensor, Tensor]:
    """Colors [B,V,H,W,4] and alpha [B,V,H,W,1] of projected Gaussians, sorted into tiles of `tile` pixels a side.

    size: width and height. starts: [B,V,rows,columns], where each tile's part of `order`, indices of Gaussians, begins.
    """
    means = gaussians[0]
    worth = torch.is_grad_enabled() and means.requires_grad and tile == SIDE and starts.numel() > FEW
    if worth and gsplat.__version__.startswith(VERSIONS) and usable(means):
        draw = gsplat.cuda._wrapper._make_lazy_cuda_func(DRAW)
        image, alpha = _Pixels.apply(*gaussians, draw, size, starts, order)
    else:
        image, alpha = gsplat.rasterize_to_pixels(*gaussians, *size, tile, starts, order)
    return image, alpha


def usable(means: Tensor) -> bool:
    """Whether the kernel can run for the tensor: torch compiles CUDA since 2.9, and launches on the current device."""
    if not means.is_cuda or means.device.index != torch.cuda.current_device():
        return False
    return kernel(means.device) is not None


@cache
def kernel(_device: torch.device) -> Any:
    """The kernel, compiled for the current device in less than a second, or None where torch cannot."""
    if not hasattr(torch.cuda, "_compile_kernel") or torch.version.hip is not None:
        return None
    source = SOURCE.read_text(encoding="utf-8")
    try:
        # gsplat is compiled with the same option.
        return torch.cuda._compile_kernel(source, "blend_slopes", nvcc_options=["--use_fast_math"])
    except (OSError, RuntimeError, TypeError) as error:
        log.warning("gradients of renders are gsplat's, which take twice as long: ours cannot be compiled: %s", error)
        return None


class _Pixels(Function):
    @staticmethod
    def forward(
        ctx: Any, means: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, draw: Any, size: tuple[int, int],
        starts: Tensor, order: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        image, alpha, last = draw(means, conics, colors, opacities, None, None, *size, SIDE, starts, order)
        ctx.save_for_backward(means, conics, colors, opacities, starts, order, alpha, last)
        ctx.size = size
        return image, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dimage: Tensor, dalpha: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        # One tensor of zeros: small images take as long as what is launched for them.
        sizes = [part.numel() for part in saved[:4]]
        zeros = saved[0].new_zeros(sum(sizes)).split(sizes)
        slopes = tuple(part.view(like.shape) for part, like in zip(zeros, saved[:4], strict=True))
        (rows, columns), count = saved[4].shape[2:], saved[4].numel()
        numbers = (*ctx.size, columns, rows * columns, count)
        tensors = (*saved, dimage.contiguous(), dalpha.contiguous(), *slopes)
        kernel(dimage.device)((-(-count // WARPS), 1, 1), (32 * WARPS, 1, 1), [*tensors, *numbers])
        return *slopes, None, None, None, None
