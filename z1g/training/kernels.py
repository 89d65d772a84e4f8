"""A Triton kernel that updates 8-bit moments of Adam in one pass over memory, as `compact_adam` does in many."""

import triton
import triton.language as tl


@triton.jit
def nearest(shares, bounds):
    """Number of the 255 ascending bounds that are below each share, by bisection."""
    code = tl.zeros(shares.shape, dtype=tl.int32)
    for step in tl.static_range(8):
        half = 128 >> step
        code = tl.where(tl.load(bounds + code + (half - 1)) < shares, code + half, code)
    return code


@triton.jit
def rounded(values, codes, scales, bounds, where, rows, stored, LEAST: tl.constexpr):
    """Store the values [rows,256] of some rows: codes of their shares of the largest magnitude, which is the scale."""
    scale = tl.max(tl.abs(values), axis=1)
    code = nearest(values / tl.maximum(scale, LEAST)[:, None], bounds)
    tl.store(codes + where, code.to(tl.uint8), mask=stored[:, None])
    tl.store(scales + rows, scale, mask=stored)


@triton.jit
def update(
    gradient, first_codes, first_scales, root_codes, root_scales,
    first_table, first_bounds, root_table, root_bounds, first_correction, root_correction, finite,
    blocks, first_weight, second_decay, second_weight, epsilon,
    LEAST: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Update moments [blocks,256] by the gradient, in whose place Adam's direction is stored.

    Corrections [blocks] are of the bias of both moments. If the scalar `finite` is 0, the moments stay as they are and
    the direction is 0.
    """
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = rows < blocks
    where, mask = rows[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :], inside[:, None]
    usable = tl.load(finite) > 0.5
    stored = rows < tl.where(usable, blocks, 0)
    g = tl.load(gradient + where, mask=mask, other=0.0)
    first = tl.load(first_table + tl.load(first_codes + where, mask=mask, other=0).to(tl.int32))
    first *= tl.load(first_scales + rows, mask=inside, other=0.0)[:, None]
    root = tl.load(root_table + tl.load(root_codes + where, mask=mask, other=0).to(tl.int32))
    root *= tl.load(root_scales + rows, mask=inside, other=0.0)[:, None]
    first += first_weight * (g - first)
    root = tl.sqrt(root * root * second_decay + g * g * second_weight)
    rounded(first, first_codes, first_scales, first_bounds, where, rows, stored, LEAST)
    rounded(root, root_codes, root_scales, root_bounds, where, rows, stored, LEAST)
    deviation = root / tl.sqrt(tl.load(root_correction + rows, mask=inside, other=1.0))[:, None] + epsilon
    direction = first / deviation / tl.load(first_correction + rows, mask=inside, other=1.0)[:, None]
    tl.store(gradient + where, tl.where(usable, direction, 0.0), mask=mask)
