"""Triton kernels of perceptual distances, on channels_last features and on planes of images."""

import triton
import triton.language as tl


@triton.jit
def unit_distance(a, b, weight, out, rows_in_all, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """out[pixel] = Σ w·(a/|a| - b/|b|)² over channels."""
    columns = tl.arange(0, COLUMNS)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    where = rows[:, None] * channels + columns[None, :]
    inside = (rows < rows_in_all)[:, None] & (columns < channels)[None, :]
    w = tl.load(weight + columns, mask=columns < channels, other=0.0).to(tl.float32)
    first = tl.load(a + where, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(b + where, mask=inside, other=0.0).to(tl.float32)
    first = first / (tl.sqrt(tl.sum(first * first, axis=1)) + 1e-10)[:, None]
    other = other / (tl.sqrt(tl.sum(other * other, axis=1)) + 1e-10)[:, None]
    apart = first - other
    tl.store(out + rows, tl.sum(w[None, :] * apart * apart, axis=1), mask=rows < rows_in_all)


@triton.jit
def unit_distance_slope(
    a, b, weight, upstream, out, rows_in_all, pixels, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Gradient of Σ upstream[object]·`unit_distance` with respect to a; zero where a is zero."""
    columns = tl.arange(0, COLUMNS)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    where = rows[:, None] * channels + columns[None, :]
    inside = (rows < rows_in_all)[:, None] & (columns < channels)[None, :]
    w = tl.load(weight + columns, mask=columns < channels, other=0.0).to(tl.float32)
    gradient = tl.load(upstream + rows // pixels, mask=rows < rows_in_all, other=0.0).to(tl.float32)
    first = tl.load(a + where, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(b + where, mask=inside, other=0.0).to(tl.float32)
    length = tl.sqrt(tl.sum(first * first, axis=1))
    shrink = tl.where(length > 0, 1 / (length + 1e-10), 0.0)
    first = first * shrink[:, None]
    other = other / (tl.sqrt(tl.sum(other * other, axis=1)) + 1e-10)[:, None]
    along = 2 * gradient[:, None] * w[None, :] * (first - other)
    across = along - first * tl.sum(first * along, axis=1)[:, None]
    tl.store(out + where, (across * shrink[:, None]).to(out.dtype.element_ty), mask=inside)


@triton.jit
def first_layer(
    x, shift, scale, weight, bias, out, height, width, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """out = max(w * z + bias, 0) in channels_last, with z = (x - shift) / scale of planes x [objects,3,height,width].

    w [channels,3,3,3]; pixels outside of an image are 0. A pixel's 27 values are a row of a product.
    """
    item, pixels = tl.program_id(1), height * width
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    k, columns = tl.arange(0, 32), tl.arange(0, COLUMNS)
    plane = k // 9
    v = (rows // width)[:, None] + (k % 9 // 3)[None, :] - 1
    h = (rows % width)[:, None] + (k % 3)[None, :] - 1
    inside = (rows < pixels)[:, None] & (k < 27)[None, :] & (v >= 0) & (v < height) & (h >= 0) & (h < width)
    place = item.to(tl.int64) * (3 * pixels) + plane[None, :] * pixels + v * width + h
    value = tl.load(x + place, mask=inside, other=0.0)
    moved = tl.load(shift + plane, mask=k < 27, other=0.0)[None, :]
    divided = tl.load(scale + plane, mask=k < 27, other=1.0)[None, :]
    # TF32 holds bfloat16 exactly.
    z = tl.where(inside, (value - moved) / divided, 0.0).to(out.dtype.element_ty).to(tl.float32)
    used = (k < 27)[:, None] & (columns < channels)[None, :]
    w = tl.load(weight + columns[None, :] * 27 + k[:, None], mask=used, other=0.0).to(tl.float32)
    total = tl.dot(z, w) + tl.load(bias + columns, mask=columns < channels, other=0.0).to(tl.float32)[None, :]
    to = (item.to(tl.int64) * pixels + rows)[:, None] * channels + columns[None, :]
    there = (rows < pixels)[:, None] & (columns < channels)[None, :]
    tl.store(out + to, tl.maximum(total, 0.0).to(out.dtype.element_ty), mask=there)


@triton.jit
def relu_pooled(
    x, bias, out, pooled, windows, width, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """out = max(x + bias, 0); pooled = its largest values in windows of 2×2 pixels, `width` of them in a line."""
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (rows < windows)[:, None] & (columns < channels)[None, :]
    b = tl.load(bias + columns, mask=columns < channels, other=0.0).to(tl.float32)[None, :]
    line = rows // width
    first = (4 * line * width + 2 * (rows - line * width))[:, None] * channels + columns[None, :]
    largest = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    for k in tl.static_range(4):
        place = first + ((k // 2) * 2 * width + k % 2) * channels
        value = tl.maximum(tl.load(x + place, mask=inside, other=0.0).to(tl.float32) + b, 0.0)
        tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)
        largest = tl.maximum(largest, value)
    tl.store(pooled + rows[:, None] * channels + columns[None, :], largest.to(pooled.dtype.element_ty), mask=inside)


@triton.jit
def relu_pooled_slope(
    features, dpooled, dfeatures, out, windows, width, channels,
    POOLED: tl.constexpr, TAPPED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradient of `relu_pooled` with respect to x: a window's reaches the first of its largest values.

    With POOLED and TAPPED, from the gradients of the pooled and of all features.
    """
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (rows < windows)[:, None] & (columns < channels)[None, :]
    line = rows // width
    first = (4 * line * width + 2 * (rows - line * width))[:, None] * channels + columns[None, :]
    largest = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    left = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    if POOLED:
        for k in tl.static_range(4):
            place = first + ((k // 2) * 2 * width + k % 2) * channels
            largest = tl.maximum(largest, tl.load(features + place, mask=inside, other=0.0).to(tl.float32))
        left += tl.load(dpooled + rows[:, None] * channels + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    for k in tl.static_range(4):
        place = first + ((k // 2) * 2 * width + k % 2) * channels
        value = tl.load(features + place, mask=inside, other=0.0).to(tl.float32)
        slope = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
        if TAPPED:
            slope += tl.load(dfeatures + place, mask=inside, other=0.0).to(tl.float32)
        if POOLED:
            hit = value == largest
            slope += tl.where(hit, left, 0.0)
            left = tl.where(hit, 0.0, left)
        tl.store(out + place, tl.where(value > 0, slope, 0.0).to(out.dtype.element_ty), mask=inside)


@triton.jit
def taps_inside(y, last):
    """Sum of the weights of a new pixel that are inside of the image."""
    return 8.0 - tl.where(y == 0, 1.0, 0.0) - tl.where(y == last, 1.0, 0.0)


@triton.jit
def halved(x, out, count, height, width, BLOCK: tl.constexpr):
    """Planes at half the size, [height,width], by the triangle filter: means of 4×4 pixels."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    line = i // width
    u = (i - line * width).to(tl.int32)
    y = (line % height).to(tl.int32)
    plane = x + (line // height) * (4 * height * width)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for k in tl.static_range(16):
        v, h = 2 * y + k // 4 - 1, 2 * u + k % 4 - 1
        used = inside & (v >= 0) & (v < 2 * height) & (h >= 0) & (h < 2 * width)
        weight = (3.0 if k // 4 == 1 or k // 4 == 2 else 1.0) * (3.0 if k % 4 == 1 or k % 4 == 2 else 1.0)
        total += weight * tl.load(plane + v * (2 * width) + h, mask=used, other=0.0)
    total = total / (taps_inside(y, height - 1) * taps_inside(u, width - 1))
    tl.store(out + i, total, mask=inside)


@triton.jit
def halved_slope(dy, out, count, height, width, BLOCK: tl.constexpr):
    """Gradient of `halved` with respect to planes [2·height,2·width]: two lines and two columns of `dy` each."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    line = i // (2 * width)
    h = (i - line * (2 * width)).to(tl.int32)
    v = (line % (2 * height)).to(tl.int32)
    plane = dy + (line // (2 * height)) * (height * width)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for k in tl.static_range(4):
        # The new pixel around an old one has weight 3, its neighbor on the other side 1.
        y = v // 2 if k < 2 else v // 2 + 2 * (v % 2) - 1
        u = h // 2 if k % 2 == 0 else h // 2 + 2 * (h % 2) - 1
        weight = (3.0 if k < 2 else 1.0) * (3.0 if k % 2 == 0 else 1.0)
        used = inside & (y >= 0) & (y < height) & (u >= 0) & (u < width)
        value = tl.load(plane + y * width + u, mask=used, other=0.0)
        total += weight * value / (taps_inside(y, height - 1) * taps_inside(u, width - 1))
    tl.store(out + i, total, mask=inside)
