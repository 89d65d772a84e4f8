"""Images on a background of each object, with one kernel each way where there is Triton."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from z1g.core.lazy import LazyModule
from z1g.render._fused import fused

# Triton is installed with GPU builds of torch.
kernels: Any = LazyModule("z1g.render._over_kernels")

BLOCK = 1024
"""Pixels per program."""


def over(rgb: Tensor, alpha: Tensor, background: Tensor | float) -> Tensor:
    """Images [B,V,3,H,W] premultiplied by alpha [B,V,1,H,W], on a background: a number, or a tensor that broadcasts."""
    if isinstance(background, Tensor) and _fits(rgb, alpha, background):
        result: Tensor = _Over.apply(rgb, alpha, background.contiguous())
        return result
    return rgb + (1 - alpha) * background


def _fits(rgb: Tensor, alpha: Tensor, background: Tensor) -> bool:
    """Whether the kernels can: float32 on a GPU, a constant color an object, and pixels at equal distances."""
    colors = background.shape == (len(rgb), 1, 3, 1, 1) and not background.requires_grad
    exact = all(x.dtype == torch.float32 for x in (rgb, alpha, background))
    return colors and exact and background.device == rgb.device and fused(rgb.device) and _even(rgb) and _even(alpha)


def _even(x: Tensor) -> bool:
    """Whether images [B,V,C,H,W] and their pixels are each at equal distances in memory."""
    _, views, _, _, width = x.shape
    return x.stride(0) == views * x.stride(1) and x.stride(3) == width * x.stride(4)


class _Over(Function):
    @staticmethod
    def forward(ctx: Any, rgb: Tensor, alpha: Tensor, background: Tensor) -> Tensor:
        b, views, _, height, width = rgb.shape
        out = torch.empty(rgb.shape, device=rgb.device)
        kernels.over[(-(-height * width // BLOCK), b * views)](
            rgb, alpha, background, out, height * width, views, rgb.stride(1), rgb.stride(2), rgb.stride(4),
            alpha.stride(1), alpha.stride(4), BLOCK=BLOCK,
        )  # fmt: skip
        ctx.save_for_backward(background)
        ctx.views = views
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        (background,) = ctx.saved_tensors
        b, views, _, height, width = dy.shape
        dy, out = dy.contiguous(), dy.new_empty(b, views, 1, height, width)
        kernels.over_slope[(-(-height * width // BLOCK), b * views)](
            dy, background, out, height * width, views, BLOCK=BLOCK
        )
        return dy, out, None
