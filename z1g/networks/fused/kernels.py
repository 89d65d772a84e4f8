"""Triton kernels on channels_last images, [objects, pixels, channels] in memory; sums are in float32.

Group normalization (Wu & He 2018) of x + shift, with x̂ = (x + shift - mean) / deviation = rs·x + off per channel and
y = silu(w·x̂ + b). Its gradient, with δ = dy·silu'(w·x̂ + b) and means over the N values of a group:
dx = rs·(w·δ - mean(w·δ) - x̂·mean(w·δ·x̂)).
"""

import triton
import triton.language as tl


@triton.jit
def silu(z):
    """z·sigmoid(z)."""
    return z * tl.sigmoid(z)


@triton.jit
def silu_slope(z):
    """Derivative of z·sigmoid(z)."""
    s = tl.sigmoid(z)
    return s * (1 + z * (1 - s))


@triton.jit
def channel_sums(
    x, shift, out, pixels, channels, span, shift_stride,
    SHIFTED: tl.constexpr, SQUARES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out[0,object,part,channel] = sum of x + shift over the part's pixels; out[1] = of its squares."""
    part, parts, item, objects = tl.program_id(0), tl.num_programs(0), tl.program_id(2), tl.num_programs(2)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    base = x + item.to(tl.int64) * pixels * channels
    moved = tl.zeros([COLUMNS], dtype=tl.float32)
    if SHIFTED:
        moved += tl.load(shift + item * shift_stride + columns).to(tl.float32)
    total = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    squares = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    for start in range(part * span, tl.minimum((part + 1) * span, pixels), ROWS):
        rows = start + tl.arange(0, ROWS)
        inside = (rows < pixels)[:, None]
        value = tl.load(base + rows.to(tl.int64)[:, None] * channels + columns[None, :], mask=inside, other=0.0)
        value = tl.where(inside, value.to(tl.float32) + moved[None, :], 0.0)
        total += value
        if SQUARES:
            squares += value * value
    tl.store(out + (item * parts + part) * channels + columns, tl.sum(total, axis=0))
    if SQUARES:
        tl.store(out + ((objects + item) * parts + part) * channels + columns, tl.sum(squares, axis=0))


@triton.jit
def moments(
    sums, shift, out, pixels, channels, parts, eps, shift_stride,
    SHIFTED: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out[0..2,object,channel] = rs, off, and the sum of x̂ over pixels, from `channel_sums`."""
    group, item, objects = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    columns = group * GROUP + tl.arange(0, COLUMNS)
    inside = tl.arange(0, COLUMNS) < GROUP
    total = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    squares = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    for start in range(0, parts, ROWS):
        rows = start + tl.arange(0, ROWS)
        where = (item * parts + rows)[:, None] * channels + columns[None, :]
        mask = (rows < parts)[:, None] & inside[None, :]
        total += tl.load(sums + where, mask=mask, other=0.0)
        squares += tl.load(sums + objects * parts * channels + where, mask=mask, other=0.0)
    per_channel = tl.sum(total, axis=0)
    count = pixels * GROUP
    mean = tl.sum(per_channel, axis=0) / count
    variance = tl.maximum(tl.sum(tl.sum(squares, axis=0), axis=0) / count - mean * mean, 0.0)
    rs = 1 / tl.sqrt(variance + eps)
    moved = tl.zeros([COLUMNS], dtype=tl.float32)
    if SHIFTED:
        moved += tl.load(shift + item * shift_stride + columns, mask=inside, other=0.0).to(tl.float32)
    place = out + item * channels + columns
    tl.store(place, tl.zeros([COLUMNS], dtype=tl.float32) + rs, mask=inside)
    tl.store(place + objects * channels, (moved - mean) * rs, mask=inside)
    tl.store(place + 2 * objects * channels, (per_channel - pixels * mean) * rs, mask=inside)


@triton.jit
def normalize(
    x, stats, weight, bias, out, pixels, channels,
    SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out = silu(w·x̂ + b), or w·x̂ + b without SILU."""
    item, objects = tl.program_id(2), tl.num_programs(2)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    where = (item.to(tl.int64) * pixels + rows)[:, None] * channels + columns[None, :]
    inside = (rows < pixels)[:, None]
    w = tl.load(weight + columns).to(tl.float32)
    factor = tl.load(stats + item * channels + columns) * w
    offset = tl.load(stats + (objects + item) * channels + columns) * w + tl.load(bias + columns).to(tl.float32)
    z = tl.load(x + where, mask=inside, other=0.0).to(tl.float32) * factor[None, :] + offset[None, :]
    if SILU:
        z = silu(z)
    tl.store(out + where, z.to(out.dtype.element_ty), mask=inside)


@triton.jit
def slope_sums(
    x, dy, stats, weight, bias, out, pixels, channels, span,
    SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out[0,object,part,channel] = sum of δ over the part's pixels; out[1] = of δ·x̂."""
    part, parts, item, objects = tl.program_id(0), tl.num_programs(0), tl.program_id(2), tl.num_programs(2)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    rs = tl.load(stats + item * channels + columns)
    off = tl.load(stats + (objects + item) * channels + columns)
    w, b = tl.load(weight + columns).to(tl.float32), tl.load(bias + columns).to(tl.float32)
    first = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    second = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    for start in range(part * span, tl.minimum((part + 1) * span, pixels), ROWS):
        rows = start + tl.arange(0, ROWS)
        where = (item.to(tl.int64) * pixels + rows)[:, None] * channels + columns[None, :]
        inside = (rows < pixels)[:, None]
        x_hat = tl.load(x + where, mask=inside, other=0.0).to(tl.float32) * rs[None, :] + off[None, :]
        delta = tl.load(dy + where, mask=inside, other=0.0).to(tl.float32)
        if SILU:
            delta = delta * silu_slope(x_hat * w[None, :] + b[None, :])
        first += delta
        second += delta * x_hat
    place = out + (item * parts + part) * channels + columns
    tl.store(place, tl.sum(first, axis=0))
    tl.store(place + objects * parts * channels, tl.sum(second, axis=0))


@triton.jit
def slope_means(
    sums, stats, weight, out, pixels, channels, parts,
    GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out[0..4,object,channel]: gradients of b, of w and of the shift, mean(w·δ) and mean(w·δ·x̂) of the group."""
    group, item, objects = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    columns = group * GROUP + tl.arange(0, COLUMNS)
    inside = tl.arange(0, COLUMNS) < GROUP
    first = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    second = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    for start in range(0, parts, ROWS):
        rows = start + tl.arange(0, ROWS)
        where = (item * parts + rows)[:, None] * channels + columns[None, :]
        mask = (rows < parts)[:, None] & inside[None, :]
        first += tl.load(sums + where, mask=mask, other=0.0)
        second += tl.load(sums + objects * parts * channels + where, mask=mask, other=0.0)
    delta, scaled = tl.sum(first, axis=0), tl.sum(second, axis=0)
    w = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    count = pixels * GROUP
    mean, slope = tl.sum(w * delta, axis=0) / count, tl.sum(w * scaled, axis=0) / count
    place, plane = item * channels + columns, objects * channels
    rs = tl.load(stats + place, mask=inside, other=0.0)
    x_hat = tl.load(stats + 2 * plane + place, mask=inside, other=0.0)
    zeros = tl.zeros([COLUMNS], dtype=tl.float32)
    tl.store(out + place, delta, mask=inside)
    tl.store(out + plane + place, scaled, mask=inside)
    tl.store(out + 2 * plane + place, rs * (w * delta - pixels * mean - slope * x_hat), mask=inside)
    tl.store(out + 3 * plane + place, zeros + mean, mask=inside)
    tl.store(out + 4 * plane + place, zeros + slope, mask=inside)


@triton.jit
def normalize_slope(
    x, dy, stats, means, weight, bias, other, out, pixels, channels,
    SILU: tl.constexpr, ADDED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out = dx, plus `other` with ADDED."""
    item, objects = tl.program_id(2), tl.num_programs(2)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    where = (item.to(tl.int64) * pixels + rows)[:, None] * channels + columns[None, :]
    inside = (rows < pixels)[:, None]
    place, plane = item * channels + columns, objects * channels
    rs, off = tl.load(stats + place), tl.load(stats + plane + place)
    mean, slope = tl.load(means + 3 * plane + place), tl.load(means + 4 * plane + place)
    w, b = tl.load(weight + columns).to(tl.float32), tl.load(bias + columns).to(tl.float32)
    x_hat = tl.load(x + where, mask=inside, other=0.0).to(tl.float32) * rs[None, :] + off[None, :]
    delta = tl.load(dy + where, mask=inside, other=0.0).to(tl.float32)
    if SILU:
        delta = delta * silu_slope(x_hat * w[None, :] + b[None, :])
    dx = rs[None, :] * (w[None, :] * delta - mean[None, :] - x_hat * slope[None, :])
    if ADDED:
        dx += tl.load(other + where, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + where, dx.to(out.dtype.element_ty), mask=inside)


@triton.jit
def add_bias(
    x, bias, other, out, rows_in_all, channels,
    ADDED: tl.constexpr, RELU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out = x + bias (+ other), followed by ReLU with RELU."""
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    where = rows[:, None] * channels + columns[None, :]
    inside = (rows < rows_in_all)[:, None]
    value = tl.load(x + where, mask=inside, other=0.0).to(tl.float32) + tl.load(bias + columns).to(tl.float32)[None, :]
    if ADDED:
        value += tl.load(other + where, mask=inside, other=0.0).to(tl.float32)
    if RELU:
        value = tl.maximum(value, 0.0)
    tl.store(out + where, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def doubled(x, out, rows_in_all, width, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """out = each pixel of x four times, in an image of twice the height and width."""
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (rows < rows_in_all)[:, None]
    value = tl.load(x + rows[:, None] * channels + columns[None, :], mask=inside, other=0.0)
    line = rows // width
    place = (4 * line * width + 2 * (rows - line * width))[:, None] * channels + columns[None, :]
    tl.store(out + place, value, mask=inside)
    tl.store(out + place + channels, value, mask=inside)
    tl.store(out + place + 2 * width * channels, value, mask=inside)
    tl.store(out + place + (2 * width + 1) * channels, value, mask=inside)


@triton.jit
def doubled_slope(dy, out, rows_in_all, width, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Gradient of `doubled`: sums of four pixels."""
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (rows < rows_in_all)[:, None]
    line = rows // width
    place = (4 * line * width + 2 * (rows - line * width))[:, None] * channels + columns[None, :]
    total = tl.load(dy + place, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(dy + place + channels, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(dy + place + 2 * width * channels, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(dy + place + (2 * width + 1) * channels, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + rows[:, None] * channels + columns[None, :], total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def picked(
    x, lines, places, out, rows_in_all, height, width, tall, wide, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """out[y,u] = x[lines[y],places[u]] of images [tall,wide] in an image [height,width]; zero where an index is -1."""
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = rows < rows_in_all
    line = rows // width
    item = line // height
    y = tl.load(lines + line - item * height, mask=there, other=-1)
    u = tl.load(places + rows - line * width, mask=there, other=-1)
    inside = there & (y >= 0) & (u >= 0)
    place = ((item * tall + y) * wide + u)[:, None] * channels + columns[None, :]
    value = tl.load(x + place, mask=inside[:, None], other=0.0)
    tl.store(out + rows[:, None] * channels + columns[None, :], value, mask=there[:, None])
