"""Numba kernels of front-to-back blending of projected Gaussians.

An image is divided into tiles of COLUMNS x ROWS pixels. Gaussians are sorted by depth once per image and listed for
each tile that their windows touch. The innermost loops run over the rows of a tile that a window covers, without
branches, so that LLVM vectorizes them. The backward pass repeats the forward pass front to back: the color behind a
Gaussian is the pixel's total minus the sum so far, so only the images are saved.
"""

import math

import numpy as np
from numba import njit, prange

from z1g.render._ellipses import BLUE, DEPTH, GREEN, OPACITY, RED, A, B, C, X, Y

COLUMNS, ROWS = 8, 8
"""Size of a tile. As many columns as a vector register has lanes waste the least on small Gaussians."""
PIXELS = COLUMNS * ROWS
AT_X, AT_Y, TRANSMIT, SUMS, SUMS_1, SUMS_2, SUMS_3, GRADIENT_3, GRADIENT_4 = (np.uint64(i * PIXELS) for i in range(9))
"""Planes of a tile's working array: pixel centers, transmittance, then sums (forward) or the planes named below.
Unsigned, because the check for negative indices prevents vectorization."""
BEHIND, GRADIENT, GRADIENT_1, GRADIENT_2 = SUMS, SUMS_1, SUMS_2, SUMS_3
CHECK_EVERY = 32
"""Number of Gaussians between checks whether a tile is finished."""
JOBS = 8
"""Least number of jobs of a backward pass. A few images are divided into strips with separate sums, independently of
the number of threads, because results must not depend on it."""
DIGIT_BITS = 11
"""Most bits per digit of the radix sort, so that the counters fit the L1 cache."""
FLOAT = np.float32
# exp(x) = (exp(x/8 + 3/8)·exp(-3/8))^8, a Taylor polynomial of degree 7: 1e-6 relative for -6 <= x <= 0.
CENTER = 0.375
COEFFICIENTS = tuple(FLOAT(math.exp(-CENTER) / math.factorial(n)) for n in range(8))
C0, C1, C2, C3, C4, C5, C6, C7 = COEFFICIENTS
# The projection excludes NaNs; sums vectorize only if they can be reordered.
FAST = {"contract", "reassoc", "nsz"}


@njit(inline="always", fastmath=FAST)
def _exp(x):  # type: ignore[no-untyped-def]
    y = x * FLOAT(0.125) + FLOAT(CENTER)
    p = C0 + y * (C1 + y * (C2 + y * (C3 + y * (C4 + y * (C5 + y * (C6 + y * C7))))))
    p = p * p
    p = p * p
    return p * p


@njit(inline="always")
def _tiles(window):  # type: ignore[no-untyped-def]
    """First and past-the-last tile column, then row, that a window touches; none for an empty window."""
    return window[0] // COLUMNS, (window[1] - 1) // COLUMNS + 1, window[2] // ROWS, (window[3] - 1) // ROWS + 1


@njit(parallel=True, cache=True)
def count_tiles(windows, bases, tiles_x, starts):  # type: ignore[no-untyped-def]
    """starts[k, t + 1] = Gaussians listed for tiles up to t of image k, whose rows are bases[k]..bases[k + 1]."""
    for k in prange(starts.shape[0]):
        starts[k] = 0
        for r in range(bases[k], bases[k + 1]):
            x0, x1, y0, y1 = _tiles(windows[r])
            for ty in range(y0, y1):
                for tx in range(x0, x1):
                    starts[k, ty * tiles_x + tx + 1] += 1
        for t in range(starts.shape[1] - 1):
            starts[k, t + 1] += starts[k, t]


@njit(parallel=True, cache=True)
def fill_tiles(depth_bits, windows, bases, tiles_x, starts, offsets, lists):  # type: ignore[no-untyped-def]
    """Write each tile's Gaussians at lists[offsets[k] + starts[k, t]], nearest first, as rows counted from bases[k]."""
    for k in prange(starts.shape[0]):
        cursor = starts[k, :-1] + offsets[k]
        for j in _by_depth(depth_bits[bases[k] : bases[k + 1]], windows[bases[k] : bases[k + 1]]):
            x0, x1, y0, y1 = _tiles(windows[bases[k] + j])
            for ty in range(y0, y1):
                for tx in range(x0, x1):
                    lists[cursor[ty * tiles_x + tx]] = j
                    cursor[ty * tiles_x + tx] += 1


@njit(cache=True)
def _by_depth(bits, windows):  # type: ignore[no-untyped-def]
    """Indices of visible Gaussians by depth, nearest first: stable radix sort by the bits of positive floats."""
    keys, order = np.empty(bits.size, np.uint32), np.empty(bits.size, np.int32)
    count, low, high = 0, np.uint32(0xFFFFFFFF), np.uint32(0)
    for j in range(bits.size):
        if windows[j, 0] < windows[j, 1]:
            key = bits[j]
            keys[count], order[count] = key, j
            low, high = min(low, key), max(high, key)
            count += 1
    keys, order = keys[:count], order[:count]
    other_keys, other_order = np.empty_like(keys), np.empty_like(order)
    n_bits = 0
    while count > 0 and np.uint64(high - low) >> np.uint64(n_bits):
        n_bits += 1
    passes = -(-n_bits // DIGIT_BITS)
    digit = -(-n_bits // max(passes, 1))
    places = np.empty((1 << digit) + 1, np.int64)
    for step in range(passes):
        shift, mask = np.uint32(step * digit), np.uint32((1 << digit) - 1)
        places[:] = 0
        for key in keys:
            places[(((key - low) >> shift) & mask) + np.uint32(1)] += 1
        for d in range(1 << digit):
            places[d + 1] += places[d]
        for i in range(count):
            d = ((keys[i] - low) >> shift) & mask
            other_keys[places[d]], other_order[places[d]] = keys[i], order[i]
            places[d] += 1
        keys, other_keys, order, other_order = other_keys, keys, other_order, order
    return order


@njit(inline="always")
def _covered(window, top):  # type: ignore[no-untyped-def]
    """First and past-the-last row-major pixel index in the tile of the rows that a window covers."""
    return np.uint64(max(window[2] - top, 0) * COLUMNS), np.uint64(min(window[3] - top, ROWS) * COLUMNS)


@njit(inline="always")
def _start_tile(s, left, top):  # type: ignore[no-untyped-def]
    """Initialize pixel centers and transmittance in planes of one array, which the compiler knows not to overlap."""
    for i in range(PIXELS):
        p = np.uint64(i)
        s[AT_X + p] = FLOAT(left + i % COLUMNS) + FLOAT(0.5)
        s[AT_Y + p] = FLOAT(top + i // COLUMNS) + FLOAT(0.5)
        s[TRANSMIT + p] = FLOAT(1)


@njit(inline="always")
def _is_finished(s):  # type: ignore[no-untyped-def]
    """Whether every pixel of the tile is finished."""
    i = 0
    while i < PIXELS and s[TRANSMIT + np.uint64(i)] <= 0:
        i += 1
    return i == PIXELS


@njit(parallel=True, cache=True, fastmath=FAST)
def forward(rows, windows, bases, starts, offsets, lists, limits, rgb, alpha, depth):  # type: ignore[no-untyped-def]
    """Render rgb [K,3,H,W], alpha and depth [K,H,W]. limits: see `_draw` and `_draw_backward`."""
    images, height, width = alpha.shape
    tiles_x = -(-width // COLUMNS)
    tiles = starts.shape[1] - 1
    for job in prange(images * tiles):
        k, t = job // tiles, job % tiles
        left, top = t % tiles_x * COLUMNS, t // tiles_x * ROWS
        s = np.empty(7 * PIXELS, FLOAT)
        _start_tile(s, left, top)
        s[3 * PIXELS :] = FLOAT(0)
        first, stop = offsets[k] + starts[k, t], offsets[k] + starts[k, t + 1]
        for place in range(first, stop):
            r = bases[k] + lists[place]
            i0, i1 = _covered(windows[r], top)
            _draw(rows[r], limits, s, i0, i1)
            if (place - first) % CHECK_EVERY == CHECK_EVERY - 1 and _is_finished(s):
                break
        for i in range(PIXELS):
            y, x = top + i // COLUMNS, left + i % COLUMNS
            if y < height and x < width:
                p = np.uint64(i)
                rgb[k, 0, y, x], rgb[k, 1, y, x], rgb[k, 2, y, x] = s[SUMS + p], s[SUMS_1 + p], s[SUMS_2 + p]
                alpha[k, y, x] = FLOAT(1) - abs(s[TRANSMIT + p])
                depth[k, y, x] = s[SUMS_3 + p]


@njit(inline="always", fastmath=FAST)
def _draw(row, limits, s, i0, i1):  # type: ignore[no-untyped-def]
    """Blend one Gaussian into pixels i0..i1. A negative transmittance marks a finished pixel."""
    min_alpha, min_transmittance, cap, _ = limits
    center_x, center_y = row[X], row[Y]
    a, b, c = FLOAT(-0.5) * row[A], -row[B], FLOAT(-0.5) * row[C]
    opacity, depth = row[OPACITY], row[DEPTH]
    red, green, blue = row[RED], row[GREEN], row[BLUE]
    for i in range(i0, i1):
        dx = s[AT_X + i] - center_x
        dy = s[AT_Y + i] - center_y
        power = max(min((a * dx + b * dy) * dx + c * dy * dy, FLOAT(0)), FLOAT(-6))
        alpha = min(opacity * _exp(power), cap)
        t = s[TRANSMIT + i]
        left = t * (FLOAT(1) - alpha)
        seen = alpha >= min_alpha
        draws = seen & (left > min_transmittance)
        ends = seen & (left <= min_transmittance)
        weight = alpha * t if draws else FLOAT(0)
        s[SUMS + i] += weight * red
        s[SUMS_1 + i] += weight * green
        s[SUMS_2 + i] += weight * blue
        s[SUMS_3 + i] += weight * depth
        s[TRANSMIT + i] = left if draws else (-abs(t) if ends else t)


@njit(parallel=True, cache=True, fastmath=FAST)
def backward(rows, windows, bases, starts, offsets, lists, limits, images, gradients, sums):  # type: ignore[no-untyped-def]
    """Add gradients of `rows` to sums [strips,R,10], those of the covariance (xx, xy, yy) in place of the conic's.

    images: outputs of `forward`; gradients: of these images.
    """
    alpha = images[1]
    height, width = alpha.shape[1:]
    tiles_x = -(-width // COLUMNS)
    tiles, strips = starts.shape[1] - 1, sums.shape[0]
    for job in prange(alpha.shape[0] * strips):
        k, strip = job // strips, job % strips
        s = np.empty(9 * PIXELS, FLOAT)
        for t in range(strip * tiles // strips, (strip + 1) * tiles // strips):
            left, top = t % tiles_x * COLUMNS, t // tiles_x * ROWS
            _start_tile(s, left, top)
            for i in range(PIXELS):
                y, x = top + i // COLUMNS, left + i % COLUMNS
                _start_pixel(s, np.uint64(i), images, gradients, k, y, x, y < height and x < width)
            first, stop = offsets[k] + starts[k, t], offsets[k] + starts[k, t + 1]
            for place in range(first, stop):
                r = bases[k] + lists[place]
                i0, i1 = _covered(windows[r], top)
                _draw_backward(rows[r], limits, s, i0, i1, sums[strip, r])
                if (place - first) % CHECK_EVERY == CHECK_EVERY - 1 and _is_finished(s):
                    break


@njit(inline="always")
def _start_pixel(s, p, images, gradients, k, y, x, inside):  # type: ignore[no-untyped-def]
    """Initialize a pixel's gradients and their inner product with it, the remainder behind the first Gaussian."""
    (rgb, alpha, depth), (g_rgb, g_alpha, g_depth) = images, gradients
    behind = g0 = g1 = g2 = g3 = g4 = FLOAT(0)
    if inside:
        g0, g1, g2 = g_rgb[k, 0, y, x], g_rgb[k, 1, y, x], g_rgb[k, 2, y, x]
        g3, g4 = g_alpha[k, y, x], g_depth[k, y, x]
        behind = rgb[k, 0, y, x] * g0 + rgb[k, 1, y, x] * g1 + rgb[k, 2, y, x] * g2
        behind += alpha[k, y, x] * g3 + depth[k, y, x] * g4
    s[BEHIND + p], s[GRADIENT + p], s[GRADIENT_1 + p], s[GRADIENT_2 + p] = behind, g0, g1, g2
    s[GRADIENT_3 + p], s[GRADIENT_4 + p] = g3, g4


@njit(inline="always", fastmath=FAST)
def _draw_backward(row, limits, s, i0, i1, result):  # type: ignore[no-untyped-def]
    """Add one Gaussian's gradients from pixels i0..i1 to `result`, and subtract its share from the remainder."""
    min_alpha, min_transmittance, cap, flat = limits
    center_x, center_y = row[X], row[Y]
    a, b, c = row[A], row[B], row[C]
    opacity, depth = row[OPACITY], row[DEPTH]
    red, green, blue = row[RED], row[GREEN], row[BLUE]
    sum_u = sum_v = sum_uu = sum_uv = sum_vv = FLOAT(0)
    sum_o = sum_z = sum_r = sum_g = sum_b = FLOAT(0)
    for i in range(i0, i1):
        dx = s[AT_X + i] - center_x
        dy = s[AT_Y + i] - center_y
        # The conic times the distance: thin Gaussians would lose their gradients in sums of dx², dx·dy and dy².
        u, v = a * dx + b * dy, b * dx + c * dy
        power = max(min(FLOAT(-0.5) * (u * dx + v * dy), FLOAT(0)), FLOAT(-6))
        falloff = _exp(power)
        raw = opacity * falloff
        alpha = min(raw, cap)
        t = s[TRANSMIT + i]
        left = t * (FLOAT(1) - alpha)
        seen = alpha >= min_alpha
        draws = seen & (left > min_transmittance)
        ends = seen & (left <= min_transmittance)
        weight = alpha * t if draws else FLOAT(0)
        g0, g1, g2 = s[GRADIENT + i], s[GRADIENT_1 + i], s[GRADIENT_2 + i]
        g3, g4 = s[GRADIENT_3 + i], s[GRADIENT_4 + i]
        value = red * g0 + green * g1 + blue * g2 + g3 + depth * g4
        rest = s[BEHIND + i] - weight * value
        s[BEHIND + i] = rest
        d_alpha = (t * value - rest / (FLOAT(1) - alpha)) if draws & (raw < flat) else FLOAT(0)
        p = d_alpha * raw
        pu, pv = p * u, p * v
        sum_o += d_alpha * falloff
        sum_u += pu
        sum_v += pv
        sum_uu += pu * u
        sum_uv += pu * v
        sum_vv += pv * v
        sum_z += weight * g4
        sum_r += weight * g0
        sum_g += weight * g1
        sum_b += weight * g2
        s[TRANSMIT + i] = left if draws else (-abs(t) if ends else t)
    result[X] += sum_u
    result[Y] += sum_v
    result[A] += FLOAT(0.5) * sum_uu
    result[B] += sum_uv
    result[C] += FLOAT(0.5) * sum_vv
    result[OPACITY] += sum_o
    result[DEPTH] += sum_z
    result[RED] += sum_r
    result[GREEN] += sum_g
    result[BLUE] += sum_b
