"""Rotary embedding in one pass over memory, where torch needs eight and the copies between them."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from z1g.networks.fused.operations import TILE, WARPS, kernels


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs of channels (2i, 2i+1) of x [R,L,H,D] rotated by angles with these cosines and sines [L,D/2], float32.

    Computed in float32; the result has the type of x. Gradients reach x only.
    """
    result: Tensor = _Rotated.apply(x.contiguous(), cos, sin)
    return result


class _Rotated(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        # A rotation's transpose turns back.
        return _turned(dy.contiguous(), cos, sin, -1.0), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    _, tokens, heads, width = x.shape
    out, pairs = torch.empty_like(x), x.numel() // 2
    kernels.rotate[(-(-2 * pairs // TILE),)](
        x, cos, sin, out, pairs, width // 2, heads, tokens, sign, BLOCK=TILE // 2, num_warps=WARPS
    )
    return out
