"""Front-to-back blending of projected Gaussians: the numba kernels.

A picture is cut into 16-pixel tiles. Gaussians are sorted by depth once a picture and listed for each tile they may
touch; a job draws one row of tiles (forward) or one strip of such rows (backward). The innermost loops run over the
rows of a tile that a Gaussian covers, without branches, so that LLVM turns them into vector instructions. The backward
pass replays the forward one front to back: what lies behind a Gaussian is the pixel's total minus what has passed, so
nothing but the pictures is kept.
"""

import math

import numpy as np
from numba import njit, prange

from z1g.render._project import MIN_ALPHA, MIN_TRANSMITTANCE

TILE = 16
X, Y, A, B, C, OPACITY, DEPTH, RED, GREEN, BLUE, REACH_X, REACH_Y = range(12)
N_PACKED = 12
PIXELS = TILE * TILE
AT_X, AT_Y, LIGHT, SUMS, SUMS_1, SUMS_2, SUMS_3, GRADIENT_3, GRADIENT_4 = (np.uint64(i * PIXELS) for i in range(9))
"""Planes of a tile's working array: pixel centres, transmittance, then sums (forward) or what is named below.
Unsigned, because a signed index may count from the end, and checking for that stops the vectoriser."""
BEHIND, GRADIENT, GRADIENT_1, GRADIENT_2 = SUMS, SUMS_1, SUMS_2, SUMS_3
LOOK_EVERY = 32
"""Gaussians between looks at whether a tile is finished."""
N_GRADIENT = 10
"""Gradients of the first ten packed numbers, in the same order."""
JOBS = 8
"""Jobs of a backward pass at least. Few pictures are cut into strips, each with its own sums, by a rule that knows
nothing of threads: results must not depend on them."""
FLOAT = np.float32
# exp(x) = (exp(x/8 + 3/8)·exp(-3/8))^8, a Taylor polynomial of degree 7: 1e-6 relative for -6 <= x <= 0.
CENTRE = 0.375
COEFFICIENTS = tuple(FLOAT(math.exp(-CENTRE) / math.factorial(n)) for n in range(8))
C0, C1, C2, C3, C4, C5, C6, C7 = COEFFICIENTS
# NaNs are kept out by the projection; reordering sums is what lets them vectorise.
FAST = {"contract", "reassoc", "nsz"}


@njit(inline="always", fastmath=FAST)
def _exp(x):  # type: ignore[no-untyped-def]
    y = x * FLOAT(0.125) + FLOAT(CENTRE)
    p = C0 + y * (C1 + y * (C2 + y * (C3 + y * (C4 + y * (C5 + y * (C6 + y * C7))))))
    p = p * p
    p = p * p
    return p * p


@njit(parallel=True, cache=True)
def pack(order, mean, conic, extent, depth, opacity, rgb, height, width, packed, ids, counts):  # type: ignore[no-untyped-def]
    """Gather what the kernels read into rows sorted by depth, leaving out what no pixel sees."""
    pictures, n = depth.shape
    views = pictures // opacity.shape[0]
    for k in prange(pictures):
        b = k // views
        count = 0
        for position in range(n):
            i = order[k, position]
            rx, ry = extent[k, 0, i], extent[k, 1, i]
            x, y = mean[k, 0, i], mean[k, 1, i]
            if rx > 0 and x + rx > 0 and x - rx < width and y + ry > 0 and y - ry < height:
                row = packed[k, count]
                row[X], row[Y] = x, y
                row[A], row[B], row[C] = conic[k, 0, i], conic[k, 1, i], conic[k, 2, i]
                row[OPACITY], row[DEPTH] = opacity[b, i], depth[k, i]
                row[RED], row[GREEN], row[BLUE] = rgb[b, 0, i], rgb[b, 1, i], rgb[b, 2, i]
                row[REACH_X], row[REACH_Y] = rx, ry
                ids[k, count] = i
                count += 1
        counts[k] = count


@njit(inline="always")
def _tiles(centre, reach, n_tiles):  # type: ignore[no-untyped-def]
    """First and one past the last tile that [centre - reach, centre + reach] touches."""
    first = math.floor(max((centre - reach) / TILE, 0.0))
    last = math.floor(min((centre + reach) / TILE, n_tiles - 1.0)) + 1
    return first, last


@njit(parallel=True, cache=True)
def count_tiles(packed, counts, tiles_y, tiles_x, starts):  # type: ignore[no-untyped-def]
    """starts[k, t + 1] = Gaussians listed for tiles up to t of picture k."""
    for k in prange(packed.shape[0]):
        for t in range(tiles_y * tiles_x + 1):
            starts[k, t] = 0
        for j in range(counts[k]):
            row = packed[k, j]
            y0, y1 = _tiles(row[Y], row[REACH_Y], tiles_y)
            x0, x1 = _tiles(row[X], row[REACH_X], tiles_x)
            for ty in range(y0, y1):
                for tx in range(x0, x1):
                    starts[k, ty * tiles_x + tx + 1] += 1
        for t in range(tiles_y * tiles_x):
            starts[k, t + 1] += starts[k, t]


@njit(parallel=True, cache=True)
def fill_tiles(packed, counts, tiles_y, tiles_x, starts, offsets, lists):  # type: ignore[no-untyped-def]
    """Write each tile's Gaussians, nearest first, at lists[offsets[k] + starts[k, t]]."""
    for k in prange(packed.shape[0]):
        cursor = starts[k, :-1].copy()
        for j in range(counts[k]):
            row = packed[k, j]
            y0, y1 = _tiles(row[Y], row[REACH_Y], tiles_y)
            x0, x1 = _tiles(row[X], row[REACH_X], tiles_x)
            for ty in range(y0, y1):
                for tx in range(x0, x1):
                    t = ty * tiles_x + tx
                    lists[offsets[k] + cursor[t]] = j
                    cursor[t] += 1


@njit(inline="always")
def _rows(row, top):  # type: ignore[no-untyped-def]
    """First and one past the last pixel, counted through the tile row by row, that a Gaussian's box covers."""
    first = max(math.floor(row[Y] - row[REACH_Y] - top), 0)
    last = min(math.ceil(row[Y] + row[REACH_Y] - top), TILE)
    return np.uint64(first * TILE), np.uint64(max(last, first) * TILE)


@njit(inline="always")
def _start_tile(s, left, top):  # type: ignore[no-untyped-def]
    """Pixel centres and full transmittance; all planes of one array, so that the compiler sees they do not overlap."""
    for i in range(PIXELS):
        p = np.uint64(i)
        s[AT_X + p] = FLOAT(left + i % TILE) + FLOAT(0.5)
        s[AT_Y + p] = FLOAT(top + i // TILE) + FLOAT(0.5)
        s[LIGHT + p] = FLOAT(1)


@njit(inline="always", fastmath=FAST)
def _dark(s):  # type: ignore[no-untyped-def]
    """Whether every pixel of the tile is finished."""
    brightest = FLOAT(-1)
    for i in range(PIXELS):
        brightest = max(brightest, s[LIGHT + np.uint64(i)])
    return brightest <= 0


@njit(parallel=True, cache=True, fastmath=FAST)
def forward(packed, starts, offsets, lists, tiles_y, tiles_x, cap, out):  # type: ignore[no-untyped-def]
    """out [K,5,H',W'], H' and W' multiples of 16: red, green, blue, alpha, depth."""
    pictures = packed.shape[0]
    for job in prange(pictures * tiles_y):
        k, ty = job // tiles_y, job % tiles_y
        s = np.empty(7 * PIXELS, FLOAT)
        for tx in range(tiles_x):
            first = offsets[k] + starts[k, ty * tiles_x + tx]
            stop = offsets[k] + starts[k, ty * tiles_x + tx + 1]
            _start_tile(s, tx * TILE, ty * TILE)
            s[3 * PIXELS :] = FLOAT(0)
            for place in range(first, stop):
                row = packed[k, lists[place]]
                i0, i1 = _rows(row, ty * TILE)
                _draw(row, cap, s, i0, i1)
                if (place - first) % LOOK_EVERY == LOOK_EVERY - 1 and _dark(s):
                    break
            for i in range(PIXELS):
                y, x = ty * TILE + i // TILE, tx * TILE + i % TILE
                p = np.uint64(i)
                out[k, 0, y, x] = s[SUMS + p]
                out[k, 1, y, x] = s[SUMS_1 + p]
                out[k, 2, y, x] = s[SUMS_2 + p]
                out[k, 3, y, x] = FLOAT(1) - abs(s[LIGHT + p])
                out[k, 4, y, x] = s[SUMS_3 + p]


@njit(inline="always", fastmath=FAST)
def _draw(row, cap, s, i0, i1):  # type: ignore[no-untyped-def]
    """Blend one Gaussian into pixels i0..i1. Transmittance turns negative once a pixel is finished."""
    centre_x, centre_y = row[X], row[Y]
    a, b, c = FLOAT(-0.5) * row[A], -row[B], FLOAT(-0.5) * row[C]
    opacity, depth = row[OPACITY], row[DEPTH]
    red, green, blue = row[RED], row[GREEN], row[BLUE]
    for i in range(i0, i1):
        dx = s[AT_X + i] - centre_x
        dy = s[AT_Y + i] - centre_y
        power = max(min((a * dx + b * dy) * dx + c * dy * dy, FLOAT(0)), FLOAT(-6))
        alpha = min(opacity * _exp(power), cap)
        t = s[LIGHT + i]
        left = t * (FLOAT(1) - alpha)
        seen = alpha >= FLOAT(MIN_ALPHA)
        draws = seen & (left > FLOAT(MIN_TRANSMITTANCE))
        ends = seen & (left <= FLOAT(MIN_TRANSMITTANCE))
        weight = alpha * t if draws else FLOAT(0)
        s[SUMS + i] += weight * red
        s[SUMS_1 + i] += weight * green
        s[SUMS_2 + i] += weight * blue
        s[SUMS_3 + i] += weight * depth
        s[LIGHT + i] = left if draws else (-abs(t) if ends else t)


@njit(parallel=True, cache=True, fastmath=FAST)
def backward(packed, starts, offsets, lists, tiles_y, tiles_x, cap, total, grad, sums):  # type: ignore[no-untyped-def]
    """sums [K,strips,N,10]: gradients of packed numbers. total [K,H',W']: inner product of pictures and gradients."""
    pictures, strips = sums.shape[0], sums.shape[1]
    for job in prange(pictures * strips):
        k, strip = job // strips, job % strips
        s = np.empty(9 * PIXELS, FLOAT)
        for ty in range(strip * tiles_y // strips, (strip + 1) * tiles_y // strips):
            for tx in range(tiles_x):
                first = offsets[k] + starts[k, ty * tiles_x + tx]
                stop = offsets[k] + starts[k, ty * tiles_x + tx + 1]
                _start_tile(s, tx * TILE, ty * TILE)
                for i in range(PIXELS):
                    y, x = ty * TILE + i // TILE, tx * TILE + i % TILE
                    p = np.uint64(i)
                    s[BEHIND + p] = total[k, y, x]
                    s[GRADIENT + p] = grad[k, 0, y, x]
                    s[GRADIENT_1 + p] = grad[k, 1, y, x]
                    s[GRADIENT_2 + p] = grad[k, 2, y, x]
                    s[GRADIENT_3 + p] = grad[k, 3, y, x]
                    s[GRADIENT_4 + p] = grad[k, 4, y, x]
                for place in range(first, stop):
                    j = lists[place]
                    row = packed[k, j]
                    i0, i1 = _rows(row, ty * TILE)
                    _undraw(row, cap, s, i0, i1, sums[k, strip, j])
                    if (place - first) % LOOK_EVERY == LOOK_EVERY - 1 and _dark(s):
                        break


@njit(inline="always", fastmath=FAST)
def _undraw(row, cap, s, i0, i1, result):  # type: ignore[no-untyped-def]
    """Add one Gaussian's gradients from pixels i0..i1 to `result`; what lies behind loses its share of the total."""
    centre_x, centre_y = row[X], row[Y]
    a, b, c = FLOAT(-0.5) * row[A], -row[B], FLOAT(-0.5) * row[C]
    opacity, depth = row[OPACITY], row[DEPTH]
    red, green, blue = row[RED], row[GREEN], row[BLUE]
    sum_x = sum_y = sum_xx = sum_xy = sum_yy = FLOAT(0)
    sum_o = sum_z = sum_r = sum_g = sum_b = FLOAT(0)
    for i in range(i0, i1):
        dx = s[AT_X + i] - centre_x
        dy = s[AT_Y + i] - centre_y
        power = max(min((a * dx + b * dy) * dx + c * dy * dy, FLOAT(0)), FLOAT(-6))
        falloff = _exp(power)
        raw = opacity * falloff
        alpha = min(raw, cap)
        t = s[LIGHT + i]
        left = t * (FLOAT(1) - alpha)
        seen = alpha >= FLOAT(MIN_ALPHA)
        draws = seen & (left > FLOAT(MIN_TRANSMITTANCE))
        ends = seen & (left <= FLOAT(MIN_TRANSMITTANCE))
        weight = alpha * t if draws else FLOAT(0)
        g0, g1, g2 = s[GRADIENT + i], s[GRADIENT_1 + i], s[GRADIENT_2 + i]
        g3, g4 = s[GRADIENT_3 + i], s[GRADIENT_4 + i]
        value = red * g0 + green * g1 + blue * g2 + g3 + depth * g4
        rest = s[BEHIND + i] - weight * value
        s[BEHIND + i] = rest
        # At the cap the gradient is zero, gsplat's convention.
        d_alpha = (t * value - rest / (FLOAT(1) - alpha)) if draws & (raw < cap) else FLOAT(0)
        p = d_alpha * alpha
        px, py = p * dx, p * dy
        sum_o += d_alpha * falloff
        sum_x += px
        sum_y += py
        sum_xx += px * dx
        sum_xy += px * dy
        sum_yy += py * dy
        sum_z += weight * g4
        sum_r += weight * g0
        sum_g += weight * g1
        sum_b += weight * g2
        s[LIGHT + i] = left if draws else (-abs(t) if ends else t)
    result[X] += row[A] * sum_x + row[B] * sum_y
    result[Y] += row[C] * sum_y + row[B] * sum_x
    result[A] -= FLOAT(0.5) * sum_xx
    result[B] -= sum_xy
    result[C] -= FLOAT(0.5) * sum_yy
    result[OPACITY] += sum_o
    result[DEPTH] += sum_z
    result[RED] += sum_r
    result[GREEN] += sum_g
    result[BLUE] += sum_b


@njit(parallel=True, cache=True)
def scatter(sums, ids, counts, result):  # type: ignore[no-untyped-def]
    """result [K,10,N] in the caller's order of Gaussians, strips added up in a fixed order."""
    for k in prange(sums.shape[0]):
        for j in range(counts[k]):
            i = ids[k, j]
            for c in range(N_GRADIENT):
                value = FLOAT(0)
                for strip in range(sums.shape[1]):
                    value += sums[k, strip, j, c]
                result[k, c, i] = value
