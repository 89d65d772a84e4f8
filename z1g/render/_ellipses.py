"""Numba kernels that project Gaussians to ellipses in images, and their backward passes.

The formulas are those of `projection.project` with explicit derivatives. View-independent terms are computed once per
object, for the *live* Gaussians, which are those that can be visible, packed densely. A block of them is stored in
planes of one array, so that the compiler knows that they do not overlap and vectorizes the loops; blocks are always
computed as a whole, so that results do not depend on their other Gaussians.
"""

import math

import numpy as np
from numba import njit, prange

FLOAT = np.float32
BLOCK = 128
# Rows of `bodies`: center, axes (columns of rotation times scale, row-major), reach in standard deviations squared.
N_BODY = 17
SPREAD, OPACITY_BODY, RGB_BODY = 12, 13, 14
# Columns of `rows`, the input of blending, and of their gradients. `_kernels` compiles these numbers too, and numba's
# cache detects changes in a function's own file only: edit both.
X, Y, A, B, C, OPACITY, DEPTH, RED, GREEN, BLUE = range(10)
N_ROW = 10
(PX, PY, PZ, A00, A01, A02, A10, A11, A12, A20, A21, A22, REACH) = (np.uint64(i * BLOCK) for i in range(13))
MEAN_X, MEAN_Y, CONIC_A, CONIC_B, CONIC_C, Z, BOX_X, BOX_Y, LONGEST = (np.uint64(i * BLOCK) for i in range(13, 22))
N_FORWARD = 22
"""Planes of a block: the body, then the ellipse; in the backward pass the body, gradients of the ellipse, sums."""
G_X, G_Y, G_XX, G_XY, G_YY, G_Z = (np.uint64(i * BLOCK) for i in range(12, 18))
SUM = 18
(S_X, S_Y, S_Z, S_00, S_01, S_02, S_10, S_11, S_12, S_20, S_21, S_22) = (np.uint64(i * BLOCK) for i in range(18, 30))
S_OPACITY = 30
N_BACKWARD = 34
# No `reassoc`: a newly compiled kernel and one from the cache would differ in their last bits. Loops with divisions
# also need error_model="numpy", because checks for zero prevent vectorization.
FAST = {"contract", "nsz"}
SLACK_PX = FLOAT(0.01)
"""Margin added to boxes, so that rounding loses no pixel."""
CUT_TILE = 16
"""Side of 3DGS's tiles in pixels, part of its footprint."""


@njit(parallel=True, cache=True)
def count_live(gaussians, largest, min_alpha, counts):  # type: ignore[no-untyped-def]
    """counts [B,blocks]: Gaussians of [B,N,14] with finite numbers and an opacity above `min_alpha`."""
    objects, blocks = counts.shape
    for job in prange(objects * blocks):
        b, block = job // blocks, job % blocks
        count = 0
        for i in range(block * BLOCK, min((block + 1) * BLOCK, gaussians.shape[1])):
            count += _is_live(gaussians[b, i], largest, min_alpha)
        counts[b, block] = count


@njit(inline="always")
def _is_live(g, largest, min_alpha):  # type: ignore[no-untyped-def]
    good = g[3] > min_alpha
    for c in range(14):
        good &= abs(g[c]) < largest
    return good


@njit(parallel=True, cache=True)
def shape(gaussians, largest, min_alpha, normalize, places, ids, bodies):  # type: ignore[no-untyped-def]
    """bodies [17,L] and ids [L] of the live Gaussians of all objects; places [B,blocks]: first index of each block."""
    objects, blocks = places.shape
    for job in prange(objects * blocks):
        b, block = job // blocks, job % blocks
        at = places[b, block]
        for i in range(block * BLOCK, min((block + 1) * BLOCK, gaussians.shape[1])):
            g = gaussians[b, i]
            if _is_live(g, largest, min_alpha):
                ids[at] = i
                for c in range(3):
                    bodies[c, at] = g[c]
                    bodies[RGB_BODY + c, at] = g[11 + c]
                rotation = _rotation(g[7], g[8], g[9], g[10], _inverse_length(g, normalize))
                for c in range(9):
                    bodies[3 + c, at] = rotation[c] * g[4 + c % 3]
                bodies[SPREAD, at] = FLOAT(2) * math.log(g[3] / min_alpha)
                bodies[OPACITY_BODY, at] = g[3]
                at += 1


@njit(inline="always")
def _inverse_length(g, normalize):  # type: ignore[no-untyped-def]
    """Inverse length of the quaternion, or 1 without `normalize`; the length is at least 1e-12, as in torch."""
    length = math.sqrt(g[7] * g[7] + g[8] * g[8] + g[9] * g[9] + g[10] * g[10])
    if not normalize:
        return FLOAT(1)
    return FLOAT(1) / length if length > 1e-12 else FLOAT(1e12)


@njit(inline="always")
def _rotation(w, x, y, z, inverse):  # type: ignore[no-untyped-def]
    w, x, y, z = w * inverse, x * inverse, y * inverse, z * inverse
    one, two = FLOAT(1), FLOAT(2)
    return (
        one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y),
        two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x),
        two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y),
    )  # fmt: skip


@njit(inline="always")
def _load(bodies, begin, count, planes, s):  # type: ignore[no-untyped-def]
    for plane in range(planes):
        for i in range(count):
            s[plane * BLOCK + i] = bodies[plane, begin + i]


@njit(parallel=True, cache=True, fastmath=FAST)
def project(bodies, first, w2c, lens, three_sigma, height, width, rows, windows):  # type: ignore[no-untyped-def]
    """rows [R,10] and windows [R,4] (first and past-the-last column, then row; empty if nothing is visible).

    first [B+1]: index in `bodies` of each object's first live Gaussian; those of object b in view v of V start at
    V·first[b] + v·(first[b+1] - first[b]) in rows. lens: focal, low pass, clamp of slopes along x and y, near.
    """
    views = w2c.shape[1]
    for k in prange(w2c.shape[0] * views):
        b, v = k // views, k % views
        count = first[b + 1] - first[b]
        base = views * first[b] + v * count
        s = np.zeros(N_FORWARD * BLOCK, FLOAT)
        for begin in range(0, count, BLOCK):
            m = min(BLOCK, count - begin)
            _load(bodies, first[b] + begin, m, 13, s)
            _ellipses(s, w2c[b, v], lens, FLOAT(0.5 * width), FLOAT(0.5 * height))
            for i in range(m):
                r = base + begin + i
                window = windows[r]
                _window(s, np.uint64(i), three_sigma, lens[4], height, width, window)
                if window[0] < window[1]:
                    row, body = rows[r], first[b] + begin + i
                    p = np.uint64(i)
                    row[X], row[Y], row[DEPTH] = s[MEAN_X + p], s[MEAN_Y + p], s[Z + p]
                    row[A], row[B], row[C] = s[CONIC_A + p], s[CONIC_B + p], s[CONIC_C + p]
                    row[OPACITY] = bodies[OPACITY_BODY, body]
                    row[RED], row[GREEN], row[BLUE] = bodies[14, body], bodies[15, body], bodies[16, body]


@njit(inline="always")
def _numbers(pose):  # type: ignore[no-untyped-def]
    """Rotation (row-major) and translation of a world-to-camera pose [4,4]."""
    rotation = (
        pose[0, 0], pose[0, 1], pose[0, 2], pose[1, 0], pose[1, 1], pose[1, 2], pose[2, 0], pose[2, 1], pose[2, 2],
    )  # fmt: skip
    return rotation, (pose[0, 3], pose[1, 3], pose[2, 3])


@njit(inline="always", fastmath=FAST)
def _center(s, p, rotation, translation, near):  # type: ignore[no-untyped-def]
    """Depth, 1/depth (1 if it is too near) and slopes of a Gaussian's center."""
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation
    px, py, pz = s[PX + p], s[PY + p], s[PZ + p]
    z = r20 * px + r21 * py + r22 * pz + translation[2]
    inverse = FLOAT(1) / (z if z > near else FLOAT(1))
    slope_x = (r00 * px + r01 * py + r02 * pz + translation[0]) * inverse
    slope_y = (r10 * px + r11 * py + r12 * pz + translation[1]) * inverse
    return z, inverse, slope_x, slope_y


@njit(inline="always", fastmath=FAST)
def _half(s, p, j0, j1, j2):  # type: ignore[no-untyped-def]
    """A row of the projection times the axes; inner products of these give the covariance."""
    h0 = j0 * s[A00 + p] + j1 * s[A10 + p] + j2 * s[A20 + p]
    h1 = j0 * s[A01 + p] + j1 * s[A11 + p] + j2 * s[A21 + p]
    h2 = j0 * s[A02 + p] + j1 * s[A12 + p] + j2 * s[A22 + p]
    return h0, h1, h2


@njit(inline="always", fastmath=FAST)
def _jacobian(rotation, slope_x, slope_y, scale, limit_x, limit_y):  # type: ignore[no-untyped-def]
    """Both rows of the projection's Jacobian times the rotation into the camera."""
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation
    clamped_x = min(max(slope_x, -limit_x), limit_x)
    clamped_y = min(max(slope_y, -limit_y), limit_y)
    row_x = scale * (r00 - clamped_x * r20), scale * (r01 - clamped_x * r21), scale * (r02 - clamped_x * r22)
    row_y = scale * (r10 - clamped_y * r20), scale * (r11 - clamped_y * r21), scale * (r12 - clamped_y * r22)
    return row_x, row_y


@njit(fastmath=FAST, error_model="numpy")
def _ellipses(s, pose, lens, half_width, half_height):  # type: ignore[no-untyped-def]
    focal, low_pass, limit_x, limit_y, near = lens
    rotation, translation = _numbers(pose)
    for i in range(BLOCK):
        p = np.uint64(i)
        z, inverse, slope_x, slope_y = _center(s, p, rotation, translation, near)
        (j0, j1, j2), (k0, k1, k2) = _jacobian(rotation, slope_x, slope_y, focal * inverse, limit_x, limit_y)
        hx0, hx1, hx2 = _half(s, p, j0, j1, j2)
        hy0, hy1, hy2 = _half(s, p, k0, k1, k2)
        round_x = hx0 * hx0 + hx1 * hx1 + hx2 * hx2
        round_y = hy0 * hy0 + hy1 * hy1 + hy2 * hy2
        xy = hx0 * hy0 + hx1 * hy1 + hx2 * hy2
        c0, c1, c2 = hx1 * hy2 - hx2 * hy1, hx2 * hy0 - hx0 * hy2, hx0 * hy1 - hx1 * hy0
        determinant = c0 * c0 + c1 * c1 + c2 * c2 + low_pass * (round_x + round_y) + low_pass * low_pass
        over = FLOAT(1) / determinant
        xx, yy = round_x + low_pass, round_y + low_pass
        s[MEAN_X + p] = focal * slope_x + half_width
        s[MEAN_Y + p] = focal * slope_y + half_height
        s[CONIC_A + p] = yy * over
        s[CONIC_B + p] = -xy * over
        s[CONIC_C + p] = xx * over
        s[Z + p] = z
        s[BOX_X + p] = math.sqrt(xx * s[REACH + p])
        s[BOX_Y + p] = math.sqrt(yy * s[REACH + p])
        half = FLOAT(0.5) * (xx - yy)
        apart = math.sqrt(max(half * half + xy * xy, FLOAT(0.1)))
        s[LONGEST + p] = FLOAT(3) * math.sqrt(FLOAT(0.5) * (xx + yy) + apart)


@njit(inline="always")
def _window(s, p, three_sigma, near, height, width, window):  # type: ignore[no-untyped-def]
    """Columns and rows of the pixels in the box where alpha reaches 1/255; `three_sigma`: only in 3DGS's tiles."""
    x, y = s[MEAN_X + p], s[MEAN_Y + p]
    rx, ry = s[BOX_X + p] + SLACK_PX, s[BOX_Y + p] + SLACK_PX
    x0, x1 = _pixel(x - rx, width), _pixel(x + rx, width)
    y0, y1 = _pixel(y - ry, height), _pixel(y + ry, height)
    if three_sigma:
        radius = np.ceil(s[LONGEST + p])
        x0, x1 = max(x0, _tile(x - radius, width)), min(x1, _tile(x + radius + FLOAT(15), width))
        y0, y1 = max(y0, _tile(y - radius, height)), min(y1, _tile(y + radius + FLOAT(15), height))
    empty = (s[Z + p] <= near) | (x0 >= x1) | (y0 >= y1)
    window[0], window[1] = (0, 0) if empty else (x0, x1)
    window[2], window[3] = (0, 0) if empty else (y0, y1)


@njit(inline="always")
def _pixel(edge, size):  # type: ignore[no-untyped-def]
    """Index of the first pixel with its center past `edge`."""
    return np.int64(_inside(edge + FLOAT(0.5), FLOAT(size)))


@njit(inline="always")
def _inside(x, size):  # type: ignore[no-untyped-def]
    """x clamped to 0..size, 0 for NaN; explicit, because the result becomes an index."""
    x = x if x > 0 else FLOAT(0)
    return x if x < size else size


@njit(inline="always")
def _tile(edge, size):  # type: ignore[no-untyped-def]
    """First pixel of the 3DGS tile that contains `edge`; in 3DGS the first pixel's center has coordinate 0."""
    return np.int64(_inside(edge - FLOAT(0.5), FLOAT(size + CUT_TILE))) // CUT_TILE * CUT_TILE


@njit(parallel=True, cache=True, fastmath=FAST)
def unproject(gaussians, bodies, ids, first, w2c, lens, normalize, sums, result):  # type: ignore[no-untyped-def]
    """result [B,N,14]: gradients of Gaussians from sums [strips,R,10] of those of their projections, or zero."""
    objects, views = w2c.shape[:2]
    blocks = -(-gaussians.shape[1] // BLOCK)
    for job in prange(objects * blocks):
        b, begin = job // blocks, job % blocks * BLOCK
        count = first[b + 1] - first[b]
        m = min(BLOCK, count - begin)
        if m > 0:
            s = np.zeros(N_BACKWARD * BLOCK, FLOAT)
            _load(bodies, first[b] + begin, m, 12, s)
            for v in range(views):
                _gather(sums, views * first[b] + v * count + begin, m, s)
                _bodies(s, w2c[b, v], lens)
            for i in range(m):
                n = ids[first[b] + begin + i]
                _finish(gaussians[b, n], normalize, s, i, result[b, n])


@njit(inline="always")
def _gather(sums, base, count, s):  # type: ignore[no-untyped-def]
    for i in range(count):
        r, p = base + i, np.uint64(i)
        g = sums[0, r]
        gx, gy, ga, gb, gc, gz = g[X], g[Y], g[A], g[B], g[C], g[DEPTH]
        go, g0, g1, g2 = g[OPACITY], g[RED], g[GREEN], g[BLUE]
        for strip in range(1, sums.shape[0]):
            g = sums[strip, r]
            gx, gy, ga, gb, gc, gz = gx + g[X], gy + g[Y], ga + g[A], gb + g[B], gc + g[C], gz + g[DEPTH]
            go, g0, g1, g2 = go + g[OPACITY], g0 + g[RED], g1 + g[GREEN], g2 + g[BLUE]
        s[G_X + p], s[G_Y + p], s[G_XX + p], s[G_XY + p], s[G_YY + p], s[G_Z + p] = gx, gy, ga, gb, gc, gz
        s[S_OPACITY * BLOCK + i] += go
        s[(S_OPACITY + 1) * BLOCK + i] += g0
        s[(S_OPACITY + 2) * BLOCK + i] += g1
        s[(S_OPACITY + 3) * BLOCK + i] += g2


@njit(fastmath=FAST, error_model="numpy")
def _bodies(s, pose, lens):  # type: ignore[no-untyped-def]
    """Backpropagate one view's gradients of mean, covariance and depth to the sums of centers and axes."""
    focal, _, limit_x, limit_y, near = lens
    rotation, translation = _numbers(pose)
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation
    two = FLOAT(2)
    for i in range(BLOCK):
        p = np.uint64(i)
        _, inverse, slope_x, slope_y = _center(s, p, rotation, translation, near)
        scale = focal * inverse
        (j0, j1, j2), (k0, k1, k2) = _jacobian(rotation, slope_x, slope_y, scale, limit_x, limit_y)
        hx0, hx1, hx2 = _half(s, p, j0, j1, j2)
        hy0, hy1, hy2 = _half(s, p, k0, k1, k2)
        g_xx, g_xy, g_yy = two * s[G_XX + p], s[G_XY + p], two * s[G_YY + p]
        ux0, uy0 = g_xx * hx0 + g_xy * hy0, g_yy * hy0 + g_xy * hx0
        ux1, uy1 = g_xx * hx1 + g_xy * hy1, g_yy * hy1 + g_xy * hx1
        ux2, uy2 = g_xx * hx2 + g_xy * hy2, g_yy * hy2 + g_xy * hx2
        # The Jacobian's dependence on the slopes involves the third camera axis.
        z0, z1, z2 = _half(s, p, scale * r20, scale * r21, scale * r22)
        bend_x = z0 * ux0 + z1 * ux1 + z2 * ux2 if abs(slope_x) <= limit_x else FLOAT(0)
        bend_y = z0 * uy0 + z1 * uy1 + z2 * uy2 if abs(slope_y) <= limit_y else FLOAT(0)
        g_slope_x, g_slope_y = focal * s[G_X + p] - bend_x, focal * s[G_Y + p] - bend_y
        growth = hx0 * ux0 + hx1 * ux1 + hx2 * ux2 + hy0 * uy0 + hy1 * uy1 + hy2 * uy2
        gx, gy = g_slope_x * inverse, g_slope_y * inverse
        gz = s[G_Z + p] - inverse * (growth + slope_x * g_slope_x + slope_y * g_slope_y)
        s[S_X + p] += r00 * gx + r10 * gy + r20 * gz
        s[S_Y + p] += r01 * gx + r11 * gy + r21 * gz
        s[S_Z + p] += r02 * gx + r12 * gy + r22 * gz
        s[S_00 + p] += j0 * ux0 + k0 * uy0
        s[S_01 + p] += j0 * ux1 + k0 * uy1
        s[S_02 + p] += j0 * ux2 + k0 * uy2
        s[S_10 + p] += j1 * ux0 + k1 * uy0
        s[S_11 + p] += j1 * ux1 + k1 * uy1
        s[S_12 + p] += j1 * ux2 + k1 * uy2
        s[S_20 + p] += j2 * ux0 + k2 * uy0
        s[S_21 + p] += j2 * ux1 + k2 * uy1
        s[S_22 + p] += j2 * ux2 + k2 * uy2


@njit(inline="always")
def _finish(g, normalize, s, i, result):  # type: ignore[no-untyped-def]
    """One Gaussian's gradient [14] from the sums over all views."""
    inverse = _inverse_length(g, normalize)
    rotation = _rotation(g[7], g[8], g[9], g[10], inverse)
    for c in range(3):
        result[c] = s[(SUM + c) * BLOCK + i]
        result[11 + c] = s[(S_OPACITY + 1 + c) * BLOCK + i]
        g0, g1, g2 = s[(SUM + 3 + c) * BLOCK + i], s[(SUM + 6 + c) * BLOCK + i], s[(SUM + 9 + c) * BLOCK + i]
        result[4 + c] = g0 * rotation[c] + g1 * rotation[3 + c] + g2 * rotation[6 + c]
    result[3] = s[S_OPACITY * BLOCK + i]
    w, x, y, z = g[7] * inverse, g[8] * inverse, g[9] * inverse, g[10] * inverse
    p, two = np.uint64(i), FLOAT(2)
    m00, m10, m20 = s[S_00 + p] * g[4], s[S_10 + p] * g[4], s[S_20 + p] * g[4]
    m01, m11, m21 = s[S_01 + p] * g[5], s[S_11 + p] * g[5], s[S_21 + p] * g[5]
    m02, m12, m22 = s[S_02 + p] * g[6], s[S_12 + p] * g[6], s[S_22 + p] * g[6]
    gw = two * (x * (m21 - m12) + y * (m02 - m20) + z * (m10 - m01))
    gx = two * (y * (m01 + m10) + z * (m02 + m20) + w * (m21 - m12) - two * x * (m11 + m22))
    gy = two * (x * (m01 + m10) + z * (m12 + m21) + w * (m02 - m20) - two * y * (m00 + m22))
    gz = two * (x * (m02 + m20) + y * (m12 + m21) + w * (m10 - m01) - two * z * (m00 + m11))
    along = gw * w + gx * x + gy * y + gz * z if normalize and inverse < FLOAT(1e12) else FLOAT(0)
    result[7], result[8] = (gw - along * w) * inverse, (gx - along * x) * inverse
    result[9], result[10] = (gy - along * y) * inverse, (gz - along * z) * inverse
