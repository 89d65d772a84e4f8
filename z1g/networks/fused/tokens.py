"""Differentiable operations on tokens [...,C] with one kernel each way: norms and gates of transformers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from z1g.core.lazy import LazyModule
from z1g.networks.fused.operations import power_of_two, row_sums

# Triton is installed with GPU builds of torch.
kernels: Any = LazyModule("z1g.networks.fused.token_kernels")

TILE, WARPS = 2048, 4
"""Values per tile of a program, and its warps. Those of norms and gates are the fastest of eight on an H200."""
GATE_COLUMNS = 256
"""Channels per program of a gate."""
SLOPE_WARPS = 8
"""Warps of a norm's gradient."""
GATE_SLOPE_TILE, GATE_SLOPE_COLUMNS, GATE_SLOPE_WARPS = 512, 128, 2
"""Those of a gate's gradient."""
PROGRAMS, GATE_PROGRAMS = 1024, 8192
"""Number of programs that compute sums over rows."""


def added_norm(x: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(x + added, its layer norm) of tokens [...,C]; without `added`, (x, its layer norm).

    What is added next is to be added to the first result: its gradient and the norm's are then summed in one kernel.
    Gradients reach all tensors. Source: Ba et al. 2016.
    """
    added = None if added is None else added.contiguous()
    results: tuple[Tensor, Tensor] = _AddedNorm.apply(x.contiguous(), added, weight, bias, eps)
    return results


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W' + b of tokens [...,C], whose bias has its gradient from `row_sums`, which is faster than torch's sum."""
    result: Tensor = _Linear.apply(x, weight, bias)
    return result


def geglu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """[...,2D] -> [...,D]: the first half of x + bias [2D] times gelu of the second (Shazeer 2020)."""
    result: Tensor = _Geglu.apply(x.contiguous(), bias)
    return result


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs of channels (2i, 2i+1) of x [R,L,H,D] rotated by angles with these cosines and sines [L,D/2], float32.

    Computed in float32; the result has the type of x. Gradients reach x only. In torch it takes eight passes over
    memory and the copies between them.
    """
    result: Tensor = _Rotated.apply(x.contiguous(), cos, sin)
    return result


class _AddedNorm(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        rows, width = _rows(x)
        kept = x if added is None else torch.empty_like(x, dtype=torch.promote_types(x.dtype, added.dtype))
        out, stats = torch.empty_like(kept), x.new_empty(2, rows, dtype=torch.float32)
        shape = _whole_rows(width)
        kernels.added_norm[(-(-rows // shape["ROWS"]),)](
            x, x if added is None else added, weight, bias, kept, out, stats, rows, width, eps, added is not None,
            num_warps=WARPS, **shape,
        )  # fmt: skip
        ctx.save_for_backward(kept, weight, stats)
        ctx.types = x.dtype, None if added is None else added.dtype, bias.dtype
        return kept, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, kept_slope: Tensor | None, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        kept, weight, stats = ctx.saved_tensors
        x_type, added_type, bias_type = ctx.types
        of_weight = of_bias = None
        slope = kept_slope
        if dy is not None:
            slope, of_weight, of_bias = _norm_slope(kept, dy.contiguous(), kept_slope, weight, stats)
            of_weight, of_bias = of_weight.to(weight.dtype), of_bias.to(bias_type)
        if slope is None:
            return None, None, None, None, None
        return slope.to(x_type), None if added_type is None else slope.to(added_type), of_weight, of_bias, None


def _norm_slope(
    x: Tensor, dy: Tensor, other: Tensor | None, weight: Tensor, stats: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a layer norm: of x, plus `other`, of the weight and of the bias."""
    rows, width = _rows(x)
    shape, out = _whole_rows(width), torch.empty_like(x)
    parts, span = _parts(rows, shape["ROWS"], PROGRAMS)
    sums = x.new_empty(2, parts, width, dtype=torch.float32)
    kernels.norm_slope[(parts,)](
        x, dy, dy if other is None else other.contiguous(), weight, stats, out, sums, rows, width, span,
        other is not None, num_warps=SLOPE_WARPS, **shape,
    )  # fmt: skip
    of_weight, of_bias = sums.sum(1)
    return out, of_weight, of_bias


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return functional.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        slopes = dy.reshape(-1, dy.shape[-1])
        return (
            dy @ weight if of_x else None,
            slopes.T @ x.reshape(-1, x.shape[-1]) if of_weight else None,
            row_sums(slopes).to(weight.dtype) if of_bias else None,
        )


class _Geglu(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None) -> Tensor:
        width = x.shape[-1] // 2
        out = x.new_empty(*x.shape[:-1], width)
        rows, columns = out.numel() // width, min(GATE_COLUMNS, power_of_two(width))
        at_once = TILE // columns
        kernels.gated[(-(-rows // at_once), -(-width // columns))](
            x, x if bias is None else bias, out, rows, width, bias is not None, ROWS=at_once, COLUMNS=columns,
            num_warps=WARPS,
        )  # fmt: skip
        ctx.save_for_backward(x, bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor | None]:
        x, bias = ctx.saved_tensors
        dx, dy = torch.empty_like(x), dy.contiguous()
        rows, width = _rows(dy)
        columns = min(GATE_SLOPE_COLUMNS, power_of_two(width))
        blocks, at_once = -(-width // columns), GATE_SLOPE_TILE // columns
        parts, span = _parts(rows, at_once, -(-GATE_PROGRAMS // blocks))
        sums = x.new_empty(0 if bias is None else parts, 2 * width, dtype=torch.float32)
        kernels.gated_slope[(parts, blocks)](
            x, x if bias is None else bias, dy, dx, sums, rows, width, span, bias is not None, ROWS=at_once,
            COLUMNS=columns, num_warps=GATE_SLOPE_WARPS,
        )  # fmt: skip
        return dx, None if bias is None else sums.sum(0).to(bias.dtype)


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
    half, rows, out = width // 2, x.numel() // width, torch.empty_like(x)
    columns = power_of_two(half)
    at_once = max(1, TILE // (2 * columns))
    kernels.rotate[(-(-rows // at_once),)](
        x, cos, sin, out, rows, half, heads, tokens, sign, ROWS=at_once, COLUMNS=columns, num_warps=WARPS
    )
    return out


def _rows(x: Tensor) -> tuple[int, int]:
    """Number of rows of tokens [...,C], and C."""
    return x.numel() // x.shape[-1], x.shape[-1]


def _whole_rows(width: int) -> dict[str, int]:
    """Tile constants of programs that see whole rows."""
    columns = power_of_two(width)
    return {"ROWS": max(1, TILE // columns), "COLUMNS": columns}


def _parts(rows: int, at_once: int, programs: int) -> tuple[int, int]:
    """Number of programs, at most `programs`, and rows of each, a multiple of `at_once`."""
    tiles = -(-rows // at_once)
    span = -(-tiles // programs) * at_once
    return -(-rows // span), span
