"""Triton kernels on tokens, [rows, channels] in memory; sums are in float32.

Layer normalization (Ba et al. 2016) of each row, with x̂ = (x - mean)·rs, rs = 1/deviation and y = w·x̂ + b. Its
gradient, with means over the channels of a row: dx = rs·(w·dy - mean(w·dy) - x̂·mean(w·dy·x̂)).
"""

import triton
import triton.language as tl


@triton.jit
def added_norm(
    x, added, weight, bias, kept, out, stats, rows_in_all, width, eps,
    ADDED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out = the norm of x, or with ADDED of kept = x + added. stats[0..1,row] = mean and rs."""
    columns = tl.arange(0, COLUMNS)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    used, there = columns < width, rows < rows_in_all
    inside = there[:, None] & used[None, :]
    where = rows[:, None] * width + columns[None, :]
    value = tl.load(x + where, mask=inside, other=0.0).to(tl.float32)
    if ADDED:
        total = (value + tl.load(added + where, mask=inside, other=0.0).to(tl.float32)).to(kept.dtype.element_ty)
        tl.store(kept + where, total, mask=inside)
        # What is normalized is what the backward pass reads.
        value = total.to(tl.float32)
    mean = tl.sum(value, axis=1) / width
    apart = tl.where(inside, value - mean[:, None], 0.0)
    rs = 1 / tl.sqrt(tl.sum(apart * apart, axis=1) / width + eps)
    w = tl.load(weight + columns, mask=used, other=0.0).to(tl.float32)
    b = tl.load(bias + columns, mask=used, other=0.0).to(tl.float32)
    result = apart * rs[:, None] * w[None, :] + b[None, :]
    tl.store(out + where, result.to(out.dtype.element_ty), mask=inside)
    tl.store(stats + rows, mean, mask=there)
    tl.store(stats + rows_in_all + rows, rs, mask=there)


@triton.jit
def norm_slope(
    x, dy, other, weight, stats, out, sums, rows_in_all, width, span,
    ADDED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out = dx, plus `other` with ADDED; sums[0..1,part,channel] = gradients of w and b of the part's rows."""
    part, parts = tl.program_id(0), tl.num_programs(0)
    columns = tl.arange(0, COLUMNS)
    used = columns < width
    w = tl.load(weight + columns, mask=used, other=0.0).to(tl.float32)
    first = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    second = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    for start in range(part * span, tl.minimum((part + 1) * span, rows_in_all), ROWS):
        rows = start + tl.arange(0, ROWS).to(tl.int64)
        there = rows < rows_in_all
        inside = there[:, None] & used[None, :]
        where = rows[:, None] * width + columns[None, :]
        mean = tl.load(stats + rows, mask=there, other=0.0)
        rs = tl.load(stats + rows_in_all + rows, mask=there, other=0.0)
        value = tl.load(x + where, mask=inside, other=0.0).to(tl.float32)
        x_hat = tl.where(inside, (value - mean[:, None]) * rs[:, None], 0.0)
        slope = tl.load(dy + where, mask=inside, other=0.0).to(tl.float32)
        scaled = slope * w[None, :]
        along = tl.sum(scaled, axis=1) / width
        across = tl.sum(scaled * x_hat, axis=1) / width
        dx = rs[:, None] * (scaled - along[:, None] - x_hat * across[:, None])
        if ADDED:
            dx += tl.load(other + where, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + where, dx.to(out.dtype.element_ty), mask=inside)
        first += slope * x_hat
        second += slope
    place = sums + part * width + columns
    tl.store(place, tl.sum(first, axis=0), mask=used)
    tl.store(place + parts * width, tl.sum(second, axis=0), mask=used)


@triton.jit
def gelu_and_slope(z):
    """z·Φ(z) and its derivative, with Φ the normal distribution function.

    Of Φ's tail, equation 7.1.26 of Abramowitz & Stegun (1964) with an error below 1e-7, in place of `erf`.
    """
    density = tl.exp(-0.5 * z * z)
    t = 1 / (1 + 0.2316418883 * tl.abs(z))
    series = 0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    tail = 0.5 * density * t * series
    phi = tl.where(z < 0, tail, 1 - tail)
    return z * phi, phi + z * 0.3989422804014327 * density


@triton.jit
def gated(x, bias, out, rows_in_all, width, BIASED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """out[row,i] = z[row,i]·gelu(z[row,width+i]) of z = x, or of x + bias with BIASED."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    used = columns < width
    inside = (rows < rows_in_all)[:, None] & used[None, :]
    place = 2 * rows[:, None] * width + columns[None, :]
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(x + place + width, mask=inside, other=0.0).to(tl.float32)
    if BIASED:
        value += tl.load(bias + columns, mask=used, other=0.0).to(tl.float32)[None, :]
        gate += tl.load(bias + width + columns, mask=used, other=0.0).to(tl.float32)[None, :]
    gate, _ = gelu_and_slope(gate)
    tl.store(out + rows[:, None] * width + columns[None, :], (value * gate).to(out.dtype.element_ty), mask=inside)


@triton.jit
def gated_slope(
    x, bias, dy, out, sums, rows_in_all, width, span,
    BIASED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradient of `gated` with respect to x; with BIASED, sums[part,channel] = that of the bias of the part's rows."""
    part = tl.program_id(0)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    used = columns < width
    value_bias = tl.zeros([COLUMNS], dtype=tl.float32)
    gate_bias = tl.zeros([COLUMNS], dtype=tl.float32)
    if BIASED:
        value_bias += tl.load(bias + columns, mask=used, other=0.0).to(tl.float32)
        gate_bias += tl.load(bias + width + columns, mask=used, other=0.0).to(tl.float32)
    first = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    second = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    for start in range(part * span, tl.minimum((part + 1) * span, rows_in_all), ROWS):
        rows = start + tl.arange(0, ROWS).to(tl.int64)
        inside = (rows < rows_in_all)[:, None] & used[None, :]
        place = 2 * rows[:, None] * width + columns[None, :]
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) + value_bias[None, :]
        gate = tl.load(x + place + width, mask=inside, other=0.0).to(tl.float32) + gate_bias[None, :]
        upstream = tl.load(dy + rows[:, None] * width + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        gate, slope = gelu_and_slope(gate)
        value_slope, gate_slope = upstream * gate, upstream * value * slope
        tl.store(out + place, value_slope.to(out.dtype.element_ty), mask=inside)
        tl.store(out + place + width, gate_slope.to(out.dtype.element_ty), mask=inside)
        if BIASED:
            first += value_slope
            second += gate_slope
    if BIASED:
        place = sums + 2 * part * width + columns
        tl.store(place, tl.sum(first, axis=0), mask=used)
        tl.store(place + width, tl.sum(second, axis=0), mask=used)


@triton.jit
def rotate(x, cos, sin, out, rows_in_all, half, heads, tokens, sign, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """out = pairs (2i, 2i+1) of channels of x [rows,tokens,heads,2·half], turned by sign times angles [tokens,half]."""
    # A row is a head of a token.
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    inside = (rows < rows_in_all)[:, None] & (columns < half)[None, :]
    angle = (rows // heads % tokens)[:, None] * half + columns[None, :]
    c = tl.load(cos + angle, mask=inside, other=0.0)
    s = sign * tl.load(sin + angle, mask=inside, other=0.0)
    place = 2 * (rows[:, None] * half + columns[None, :])
    even = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    odd = tl.load(x + place + 1, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, (even * c - odd * s).to(out.dtype.element_ty), mask=inside)
    tl.store(out + place + 1, (even * s + odd * c).to(out.dtype.element_ty), mask=inside)
