"""Differentiable operations on channels_last images [B,C,H,W] with one to three kernels each.

Torch needs a pass over memory for each bias, normalization, activation and addition; these operations fuse them. Sums
are in float32; results and gradients have the types of their inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from z1g.core.lazy import LazyModule

# Triton is installed with GPU builds of torch.
kernels: Any = LazyModule("z1g.networks.fused.kernels")

TILE = 4096
"""Number of values per tile of a program that sees all channels of a pixel or of a group."""
WARPS = 8
IMAGE_TILE, IMAGE_WARPS = 2048, 4
"""Those of other programs; these sizes and the following ones are the fastest of nine on an H200."""
PROGRAMS = 2048
"""Number of programs that compute a sum: a few for each multiprocessor of a large GPU."""
SLOPE_TILE, SLOPE_PROGRAMS = 1024, 8192
"""Those of the sums of `slope_sums`, which needs more registers for a value."""
MAX_COLUMNS = 128
"""Most channels per program: in bfloat16 two cache lines of a GPU."""


@dataclass(frozen=True)
class _Grid:
    """Tiling of images [objects,channels,height,width] into rows (pixels) × columns (channels).

    span: number of pixels that one program sums.
    """

    objects: int
    channels: int
    pixels: int
    columns: int
    rows: int
    span: int

    @classmethod
    def of(cls, x: Tensor, tile: int = IMAGE_TILE, programs: int = PROGRAMS) -> _Grid:
        objects, channels = x.shape[:2]
        pixels = x.shape[2] * x.shape[3]
        columns = min(MAX_COLUMNS, channels & -channels)
        rows = max(1, min(tile // columns, 1 << (pixels - 1).bit_length()))
        parts = max(1, min(-(-pixels // (4 * rows)), programs // (objects * (channels // columns))))
        return cls(objects, channels, pixels, columns, rows, -(-pixels // (parts * rows)) * rows)

    @property
    def parts(self) -> int:
        """Number of partial sums per channel."""
        return -(-self.pixels // self.span)

    @property
    def summing(self) -> tuple[int, int, int]:
        """Grid of programs that compute partial sums."""
        return self.parts, self.channels // self.columns, self.objects

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Grid of programs with one tile each."""
        return -(-self.pixels // self.rows), self.channels // self.columns, self.objects

    @property
    def shape(self) -> dict[str, int]:
        """Compile-time constants of a kernel."""
        return {"ROWS": self.rows, "COLUMNS": self.columns, "num_warps": IMAGE_WARPS}


def channels_last(x: Tensor) -> Tensor:
    """Convert to channels_last."""
    return x.contiguous(memory_format=torch.channels_last)


def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool, shift: Tensor | None = None
) -> Tensor:
    """Group normalization of x + shift, then SiLU with `silu`. shift: [B,C] or [1,C]; gradients reach all tensors."""
    return kept_group_norm(x, weight, bias, groups, eps, silu, shift)[1]


def kept_group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool, shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """x in channels_last, and `group_norm` of it.

    Who needs x besides is to use the first result: its gradient and the norm's are then summed in one kernel.
    """
    results: tuple[Tensor, Tensor] = _GroupNorm.apply(channels_last(x), weight, bias, shift, groups, eps, silu)
    return results


def add_bias(x: Tensor, bias: Tensor, other: Tensor | None = None) -> Tensor:
    """x + bias [C] + `other`, an image of the same shape, if given."""
    result: Tensor = _AddBias.apply(channels_last(x), bias, None if other is None else channels_last(other))
    return result


def bias_relu(x: Tensor, bias: Tensor) -> Tensor:
    """max(x + bias, 0) with a frozen bias [C]."""
    result: Tensor = _BiasRelu.apply(channels_last(x), bias)
    return result


def doubled(x: Tensor) -> Tensor:
    """An image of twice the height and width, [B,C,H,W] -> [B,C,2H,2W], in which each pixel stands four times."""
    result: Tensor = _Doubled.apply(channels_last(x))
    return result


def nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """An image [B,C,H,W] of a smaller size by its nearest pixels, as `torch.nn.functional.interpolate` picks them.

    Raises ValueError for a larger one, whose gradient would have sums.
    """
    height, width = x.shape[2:]
    if size[0] > height or size[1] > width:
        raise ValueError(f"{size[0]}×{size[1]} pixels are more than {height}×{width}")
    result: Tensor = _Nearest.apply(channels_last(x), *size)
    return result


class _GroupNorm(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None, groups: int, eps: float, silu: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        grid, wide = _Grid.of(x), shift is not None and shift.shape[0] > 1
        shift_or_x, stride = (x, 0) if shift is None else (shift.contiguous(), grid.channels if wide else 0)
        sums = x.new_empty(2, grid.objects, grid.parts, grid.channels, dtype=torch.float32)
        kernels.channel_sums[grid.summing](
            x, shift_or_x, sums, grid.pixels, grid.channels, grid.span, stride, shift is not None, True, **grid.shape
        )
        stats = x.new_empty(3, grid.objects, grid.channels, dtype=torch.float32)
        kernels.moments[(groups, grid.objects)](
            sums, shift_or_x, stats, grid.pixels, grid.channels, grid.parts, eps, stride, shift is not None,
            **_groupwise(grid, groups),
        )  # fmt: skip
        out = torch.empty_like(x)
        kernels.normalize[grid.tiles](x, stats, weight, bias, out, grid.pixels, grid.channels, silu, **grid.shape)
        ctx.save_for_backward(x, stats, weight, bias)
        ctx.groups, ctx.silu, ctx.shifted, ctx.wide = groups, silu, shift is not None, wide
        ctx.shift_type = None if shift is None else shift.dtype
        return x, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, kept_slope: Tensor | None, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        x, stats, weight, bias = ctx.saved_tensors
        if dy is None:
            return kept_slope, None, None, None, None, None, None
        grid, dy = _Grid.of(x), channels_last(dy)
        fine = _Grid.of(x, SLOPE_TILE, SLOPE_PROGRAMS)
        sums = x.new_empty(2, fine.objects, fine.parts, fine.channels, dtype=torch.float32)
        kernels.slope_sums[fine.summing](
            x, dy, stats, weight, bias, sums, fine.pixels, fine.channels, fine.span, ctx.silu, **fine.shape
        )
        means = x.new_empty(5, grid.objects, grid.channels, dtype=torch.float32)
        kernels.slope_means[(ctx.groups, grid.objects)](
            sums, stats, weight, means, fine.pixels, fine.channels, fine.parts, **_groupwise(fine, ctx.groups)
        )
        dx = torch.empty_like(x)
        other = dy if kept_slope is None else channels_last(kept_slope)
        kernels.normalize_slope[grid.tiles](
            x, dy, stats, means, weight, bias, other, dx, grid.pixels, grid.channels, ctx.silu,
            kept_slope is not None, **grid.shape,
        )  # fmt: skip
        moved = (means[2] if ctx.wide else means[2].sum(0, keepdim=True)).to(ctx.shift_type) if ctx.shifted else None
        return dx, means[1].sum(0).to(weight.dtype), means[0].sum(0).to(bias.dtype), moved, None, None, None


class _AddBias(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, other: Tensor | None) -> Tensor:
        ctx.bias_type, ctx.other_type = bias.dtype, None if other is None else other.dtype
        return _added(x, bias, other, relu=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        dy = channels_last(dy)
        bias_gradient = _channel_sums(dy).to(ctx.bias_type) if ctx.needs_input_grad[1] else None
        return dy, bias_gradient, None if ctx.other_type is None else dy.to(ctx.other_type)


class _BiasRelu(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        out = _added(x, bias, None, relu=True)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        slope: Tensor = torch.ops.aten.threshold_backward(channels_last(dy), out, 0)
        return slope, None


class _Doubled(Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        out = torch.empty((b, c, 2 * h, 2 * w), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        _of_pixels(x, kernels.doubled, x, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(_: Any, dy: Tensor) -> Tensor:
        dy = channels_last(dy)
        b, c, h, w = dy.shape
        dx = torch.empty((b, c, h // 2, w // 2), dtype=dy.dtype, device=dy.device, memory_format=torch.channels_last)
        _of_pixels(dx, kernels.doubled_slope, dy, dx)
        return dx


class _Nearest(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, height: int, width: int) -> Tensor:
        ctx.size = x.shape[2:]
        lines, places = (_sources(old, new, x.device)[0] for old, new in zip(x.shape[2:], (height, width), strict=True))
        return _picked(x, lines, places)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        lines, places = (_sources(old, new, dy.device)[1] for old, new in zip(ctx.size, dy.shape[2:], strict=True))
        return _picked(channels_last(dy), lines, places), None, None


@lru_cache(maxsize=32)
def _sources(old: int, new: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Old pixels [new] along an axis that new ones are, and new pixels [old] that old ones are, or -1."""
    # Torch says itself which these are.
    pixels = torch.arange(old, dtype=torch.float64)[None, None]
    source = functional.interpolate(pixels, new, mode="nearest").flatten().long()
    back = torch.full((old,), -1)
    back[source] = torch.arange(new)
    return source.int().to(device), back.int().to(device)


def _picked(x: Tensor, lines: Tensor, places: Tensor) -> Tensor:
    """Pixels of x in these lines and columns; zeros for -1."""
    b, c, tall, wide = x.shape
    shape = (b, c, len(lines), len(places))
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    grid = _Grid.of(out)
    rows = grid.objects * grid.pixels
    kernels.picked[(-(-rows // grid.rows), grid.channels // grid.columns)](
        x, lines, places, out, rows, len(lines), len(places), tall, wide, c, **grid.shape
    )
    return out


def row_sums(x: Tensor) -> Tensor:
    """Sums [C] over the rows of x [R,C], in float32."""
    return _channel_sums(x.contiguous().T[None, :, :, None])


def _channel_sums(x: Tensor) -> Tensor:
    """Sums [C] over images and pixels, in float32."""
    grid = _Grid.of(x)
    sums = x.new_empty(grid.objects, grid.parts, grid.channels, dtype=torch.float32)
    kernels.channel_sums[grid.summing](
        x, x, sums, grid.pixels, grid.channels, grid.span, 0, False, False, **grid.shape
    )  # fmt: skip
    return sums.sum((0, 1))


def _of_pixels(small: Tensor, kernel: Any, *tensors: Tensor) -> None:
    """Run a kernel whose programs have tiles of an image's pixels."""
    grid = _Grid.of(small)
    rows = grid.objects * grid.pixels
    kernel[(-(-rows // grid.rows), grid.channels // grid.columns)](
        *tensors, rows, small.shape[3], grid.channels, **grid.shape
    )


def _added(x: Tensor, bias: Tensor, other: Tensor | None, *, relu: bool) -> Tensor:
    grid, out = _Grid.of(x), torch.empty_like(x)
    rows = grid.objects * grid.pixels
    kernels.add_bias[(-(-rows // grid.rows), grid.channels // grid.columns)](
        x, bias, x if other is None else other, out, rows, grid.channels, other is not None, relu, **grid.shape
    )
    return out


def _groupwise(grid: _Grid, groups: int) -> dict[str, int]:
    """Tile constants for a group's channels and partial sums."""
    size = grid.channels // groups
    columns = power_of_two(size)
    return {"GROUP": size, "ROWS": max(1, min(TILE // columns, power_of_two(grid.parts))), "COLUMNS": columns}


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least `n`."""
    return 1 << (n - 1).bit_length()
