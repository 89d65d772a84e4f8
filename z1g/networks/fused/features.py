"""Differentiable operations of perceptual distances with one kernel each way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from z1g.core.lazy import LazyModule
from z1g.networks.fused.operations import IMAGE_WARPS, MAX_COLUMNS, TILE, WARPS, channels_last, power_of_two

# Triton is installed with GPU builds of torch.
kernels: Any = LazyModule("z1g.networks.fused.feature_kernels")

WINDOW_TILE = 1024
"""Windows times channels of a program of `relu_pooled`."""
FIRST_ROWS = 128
"""Pixels of a program of `first_layer`."""
BLOCK = 1024
"""Pixels of a program of `halved`."""


def unit_distance(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Distance of LPIPS between features [B,C,H,W]: means [B] over pixels of Σ w·(a/|a| - b/|b|)².

    Gradients reach `a` only. Source: Zhang et al. 2018, equation 1.
    """
    result: Tensor = _UnitDistance.apply(channels_last(a), channels_last(b.detach()), weight.detach())
    return result


def first_layer(x: Tensor, shift: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Features [B,C,H,W] of images [B,3,H,W], float32: max(w * z + b, 0) of z = (x - shift) / scale.

    Those of a frozen convolution of 3×3 pixels, weight [C,3,3,3], whose type is that of the features; shift, scale [3].
    """
    result: Tensor = _FirstLayer.apply(
        x.contiguous(), shift.contiguous(), scale.contiguous(), weight.contiguous(), bias
    )
    return result


def relu_pooled(x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """max(x + bias, 0) of features [B,C,H,W], and the largest values of it in windows of 2×2 pixels.

    bias [C]: frozen. Raises ValueError if height or width is odd.
    """
    if x.shape[2] % 2 or x.shape[3] % 2:
        raise ValueError(f"{x.shape[2]}×{x.shape[3]} pixels are not windows of 2×2")
    results: tuple[Tensor, Tensor] = _ReluPooled.apply(channels_last(x), bias)
    return results


def halved(x: Tensor) -> Tensor:
    """Images [B,C,2h,2w], float32, at half the size [B,C,h,w] by torch's antialiased bilinear interpolation.

    Raises ValueError if height or width is odd.
    """
    if x.shape[2] % 2 or x.shape[3] % 2:
        raise ValueError(f"{x.shape[2]}×{x.shape[3]} pixels have no half")
    result: Tensor = _Halved.apply(x.contiguous())
    return result


class _UnitDistance(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
        objects, channels, height, width = a.shape
        shape, rows = _whole_pixels(channels), objects * height * width
        out = a.new_empty(objects, height * width, dtype=torch.float32)
        kernels.unit_distance[(-(-rows // shape["ROWS"]),)](a, b, weight, out, rows, channels, **shape)
        ctx.save_for_backward(a, b, weight)
        return out.mean(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        a, b, weight = ctx.saved_tensors
        objects, channels, height, width = a.shape
        shape, pixels = _whole_pixels(channels), height * width
        share, da = (upstream.float() / pixels).contiguous(), torch.empty_like(a)
        kernels.unit_distance_slope[(-(-objects * pixels // shape["ROWS"]),)](
            a, b, weight, share, da, objects * pixels, pixels, channels, **shape
        )
        return da, None, None


class _FirstLayer(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        (b, _, h, w), channels = x.shape, weight.shape[0]
        out = torch.empty((b, channels, h, w), dtype=weight.dtype, device=x.device, memory_format=torch.channels_last)
        columns = power_of_two(max(channels, 16))
        kernels.first_layer[(-(-h * w // FIRST_ROWS), b)](
            x, shift, scale, weight, bias, out, h, w, channels, ROWS=FIRST_ROWS, COLUMNS=columns, num_warps=IMAGE_WARPS
        )
        ctx.save_for_backward(out, scale, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        out, scale, weight = ctx.saved_tensors
        slope = torch.ops.aten.threshold_backward(channels_last(dy), out, 0)
        b, _, h, w = out.shape
        # Only its shape and memory order are read; in another order, the gradient of all channels would be copied.
        like = torch.empty((b, 3, h, w), dtype=out.dtype, device=out.device, memory_format=torch.channels_last)
        of_input, _, _ = torch.ops.aten.convolution_backward(
            slope, like, channels_last(weight), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False]
        )
        return of_input.float() / scale.view(3, 1, 1), None, None, None, None


class _ReluPooled(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        b, c, h, w = x.shape
        features = torch.empty_like(x)
        pooled = torch.empty((b, c, h // 2, w // 2), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        grid, shape = _windows(*pooled.shape)
        kernels.relu_pooled[grid](x, bias, features, pooled, b * (h // 2) * (w // 2), w // 2, c, **shape)
        ctx.save_for_backward(features)
        return features, pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dfeatures: Tensor | None, dpooled: Tensor | None) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        b, c, h, w = features.shape
        out = torch.empty_like(features)
        upstream = [None if slope is None else channels_last(slope) for slope in (dpooled, dfeatures)]
        grid, shape = _windows(b, c, h // 2, w // 2)
        kernels.relu_pooled_slope[grid](
            features, *(out if slope is None else slope for slope in upstream), out, b * (h // 2) * (w // 2), w // 2, c,
            *(slope is not None for slope in upstream), **shape,
        )  # fmt: skip
        return out, None


class _Halved(Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        out = x.new_empty(b, c, h // 2, w // 2)
        kernels.halved[(-(-out.numel() // BLOCK),)](
            x, out, out.numel(), h // 2, w // 2, BLOCK=BLOCK, num_warps=IMAGE_WARPS
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(_: Any, dy: Tensor) -> Tensor:
        b, c, h, w = dy.shape
        out = dy.new_empty(b, c, 2 * h, 2 * w)
        kernels.halved_slope[(-(-out.numel() // BLOCK),)](
            dy.contiguous(), out, out.numel(), h, w, BLOCK=BLOCK, num_warps=IMAGE_WARPS
        )
        return out


def _windows(b: int, c: int, h: int, w: int) -> tuple[tuple[int, int], dict[str, int]]:
    """Grid and tile constants of programs that see windows of pixels, [B,C,h,w] of them."""
    columns = min(MAX_COLUMNS, power_of_two(c))
    rows = max(1, WINDOW_TILE // columns)
    grid = -(-b * h * w // rows), -(-c // columns)
    return grid, {"ROWS": rows, "COLUMNS": columns, "num_warps": IMAGE_WARPS}


def _whole_pixels(channels: int) -> dict[str, int]:
    columns = power_of_two(channels)
    return {"ROWS": max(1, TILE // columns), "COLUMNS": columns, "num_warps": WARPS}
