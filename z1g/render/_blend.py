"""Front-to-back blending of projected Gaussians in numba: kernels and their place in autograd.

A picture is cut into 16-pixel tiles. Gaussians are sorted by depth once a picture and listed for each tile they may touch;
a job draws one row of tiles (forward) or one strip of rows (backward). The innermost loops run over 16 neighbouring pixels
without branches, so that LLVM turns them into vector instructions. The backward pass replays the forward one front to back:
what lies behind a Gaussian is the pixel's total minus what has passed, so nothing but the pictures is kept.
"""

import math
from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from z1g.render._project import MIN_ALPHA, MIN_TRANSMITTANCE, Projected

TILE = 16
X, Y, A, B, C, OPACITY, DEPTH, RED, GREEN, BLUE, REACH_X, REACH_Y = range(12)
N_PACKED = 12
N_GRADIENT = 10
"""Gradients of the first ten packed numbers, in the same order."""
STRIPS = 4
"""Strips of a picture in the backward pass, each with its own sums: fixed, so results do not depend on threads."""
FLOAT = np.float32
# exp(x) = (exp(x/8 + 3/8)·exp(-3/8))^8, a Taylor polynomial of degree 7: 1e-6 relative for -6 <= x <= 0.
CENTRE = 0.375
COEFFICIENTS = tuple(FLOAT(math.exp(-CENTRE) / math.factorial(n)) for n in range(8))
C0, C1, C2, C3, C4, C5, C6, C7 = COEFFICIENTS
# NaNs are kept out by the projection; reordering sums is what lets them vectorise.
FAST = {"contract", "reassoc", "nsz"}


@njit(inline="always", fastmath=FAST)
def _exp(x: float) -> float:
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
            rx, ry = extent[k, i, 0], extent[k, i, 1]
            x, y = mean[k, i, 0], mean[k, i, 1]
            if rx > 0 and x + rx > 0 and x - rx < width and y + ry > 0 and y - ry < height:
                row = packed[k, count]
                row[X], row[Y] = x, y
                row[A], row[B], row[C] = conic[k, i, 0], conic[k, i, 1], conic[k, i, 2]
                row[OPACITY], row[DEPTH] = opacity[b, i], depth[k, i]
                row[RED], row[GREEN], row[BLUE] = rgb[b, i, 0], rgb[b, i, 1], rgb[b, i, 2]
                row[REACH_X], row[REACH_Y] = rx, ry
                ids[k, count] = i
                count += 1
        counts[k] = count


@njit(inline="always")
def _tiles(centre, reach, n_tiles):  # type: ignore[no-untyped-def]
    """First and one past the last tile that [centre - reach, centre + reach] touches."""
    first = int(math.floor(max((centre - reach) / TILE, 0.0)))
    last = int(math.floor(min((centre + reach) / TILE, n_tiles - 1.0))) + 1
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


@njit(parallel=True, cache=True, fastmath=FAST)
def forward(packed, starts, offsets, lists, tiles_y, tiles_x, cap, out):  # type: ignore[no-untyped-def]
    """out [K,5,H',W'], H' and W' multiples of 16: red, green, blue, alpha, depth."""
    pictures = packed.shape[0]
    for job in prange(pictures * tiles_y):
        k, ty = job // tiles_y, job % tiles_y
        light = np.empty(TILE, FLOAT)
        sums = np.empty((4, TILE), FLOAT)
        for tx in range(tiles_x):
            first = offsets[k] + starts[k, ty * tiles_x + tx]
            stop = offsets[k] + starts[k, ty * tiles_x + tx + 1]
            for line in range(TILE):
                y = FLOAT(ty * TILE + line) + FLOAT(0.5)
                light[:] = FLOAT(1)
                sums[:] = FLOAT(0)
                x_first = FLOAT(tx * TILE) + FLOAT(0.5)
                for place in range(first, stop):
                    row = packed[k, lists[place]]
                    dy = y - row[Y]
                    if abs(dy) > row[REACH_Y]:
                        continue
                    brightest = _blend_line(row, dy, x_first, cap, light, sums)
                    if brightest <= 0:
                        break
                for i in range(TILE):
                    column = tx * TILE + i
                    for c in range(3):
                        out[k, c, ty * TILE + line, column] = sums[c, i]
                    out[k, 3, ty * TILE + line, column] = FLOAT(1) - abs(light[i])
                    out[k, 4, ty * TILE + line, column] = sums[3, i]


@njit(inline="always", fastmath=FAST)
def _blend_line(row, dy, x_first, cap, light, sums):  # type: ignore[no-untyped-def]
    """Blend one Gaussian into 16 pixels. `light` is the transmittance, negative once a pixel is finished.

    Returns the largest transmittance of a pixel that is not finished.
    """
    offset = x_first - row[X]
    a, b, c = FLOAT(-0.5) * row[A], -row[B] * dy, FLOAT(-0.5) * row[C] * dy * dy
    opacity, depth = row[OPACITY], row[DEPTH]
    red, green, blue = row[RED], row[GREEN], row[BLUE]
    brightest = FLOAT(-1)
    for i in range(TILE):
        dx = offset + FLOAT(i)
        power = max(min((a * dx + b) * dx + c, FLOAT(0)), FLOAT(-6))
        alpha = min(opacity * _exp(power), cap)
        t = light[i]
        left = t * (FLOAT(1) - alpha)
        seen = alpha >= FLOAT(MIN_ALPHA)
        ends = seen and left <= FLOAT(MIN_TRANSMITTANCE) and t > 0
        draws = seen and left > FLOAT(MIN_TRANSMITTANCE)
        weight = alpha * t if draws else FLOAT(0)
        sums[0, i] += weight * red
        sums[1, i] += weight * green
        sums[2, i] += weight * blue
        sums[3, i] += weight * depth
        t = left if draws else (-t if ends else t)
        light[i] = t
        brightest = max(brightest, t)
    return brightest


@njit(parallel=True, cache=True, fastmath=FAST)
def backward(packed, starts, offsets, lists, tiles_y, tiles_x, cap, total, grad, sums):  # type: ignore[no-untyped-def]
    """sums [K,STRIPS,N,10]: gradients of packed numbers. total [K,H',W']: inner product of pictures and gradients."""
    pictures = packed.shape[0]
    for job in prange(pictures * STRIPS):
        k, strip = job // STRIPS, job % STRIPS
        light = np.empty(TILE, FLOAT)
        behind = np.empty(TILE, FLOAT)
        g = np.empty((5, TILE), FLOAT)
        for ty in range(strip * tiles_y // STRIPS, (strip + 1) * tiles_y // STRIPS):
            for tx in range(tiles_x):
                first = offsets[k] + starts[k, ty * tiles_x + tx]
                stop = offsets[k] + starts[k, ty * tiles_x + tx + 1]
                for line in range(TILE):
                    picture_y = ty * TILE + line
                    y = FLOAT(picture_y) + FLOAT(0.5)
                    for i in range(TILE):
                        light[i] = FLOAT(1)
                        behind[i] = total[k, picture_y, tx * TILE + i]
                        for c in range(5):
                            g[c, i] = grad[k, c, picture_y, tx * TILE + i]
                    x_first = FLOAT(tx * TILE) + FLOAT(0.5)
                    for place in range(first, stop):
                        j = lists[place]
                        row = packed[k, j]
                        dy = y - row[Y]
                        if abs(dy) > row[REACH_Y]:
                            continue
                        brightest = _unblend_line(row, dy, x_first, cap, light, behind, g, sums[k, strip, j])
                        if brightest <= 0:
                            break


@njit(inline="always", fastmath=FAST)
def _unblend_line(row, dy, x_first, cap, light, behind, g, result):  # type: ignore[no-untyped-def]
    """Add one Gaussian's gradients from 16 pixels to `result`; `behind` loses its share of each pixel's total."""
    offset = x_first - row[X]
    a, b, c = FLOAT(-0.5) * row[A], -row[B] * dy, FLOAT(-0.5) * row[C] * dy * dy
    opacity, depth = row[OPACITY], row[DEPTH]
    red, green, blue = row[RED], row[GREEN], row[BLUE]
    sum_p = sum_px = sum_pxx = sum_o = sum_z = sum_r = sum_g = sum_b = FLOAT(0)
    brightest = FLOAT(-1)
    for i in range(TILE):
        dx = offset + FLOAT(i)
        power = max(min((a * dx + b) * dx + c, FLOAT(0)), FLOAT(-6))
        falloff = _exp(power)
        raw = opacity * falloff
        alpha = min(raw, cap)
        t = light[i]
        left = t * (FLOAT(1) - alpha)
        seen = alpha >= FLOAT(MIN_ALPHA)
        ends = seen and left <= FLOAT(MIN_TRANSMITTANCE) and t > 0
        draws = seen and left > FLOAT(MIN_TRANSMITTANCE)
        weight = alpha * t if draws else FLOAT(0)
        value = red * g[0, i] + green * g[1, i] + blue * g[2, i] + g[3, i] + depth * g[4, i]
        rest = behind[i] - weight * value
        behind[i] = rest
        # At the cap the gradient is zero, gsplat's convention.
        d_alpha = (t * value - rest / (FLOAT(1) - alpha)) if draws and raw < cap else FLOAT(0)
        p = d_alpha * alpha
        sum_o += d_alpha * falloff
        sum_p += p
        sum_px += p * dx
        sum_pxx += p * dx * dx
        sum_z += weight * g[4, i]
        sum_r += weight * g[0, i]
        sum_g += weight * g[1, i]
        sum_b += weight * g[2, i]
        t = left if draws else (-t if ends else t)
        light[i] = t
        brightest = max(brightest, t)
    result[X] += row[A] * sum_px + row[B] * dy * sum_p
    result[Y] += row[C] * dy * sum_p + row[B] * sum_px
    result[A] -= FLOAT(0.5) * sum_pxx
    result[B] -= dy * sum_px
    result[C] -= FLOAT(0.5) * dy * dy * sum_p
    result[OPACITY] += sum_o
    result[DEPTH] += sum_z
    result[RED] += sum_r
    result[GREEN] += sum_g
    result[BLUE] += sum_b
    return brightest


@njit(parallel=True, cache=True)
def scatter(sums, ids, counts, result):  # type: ignore[no-untyped-def]
    """result [K,N,10] in the callers' order of Gaussians, strips added up in a fixed order."""
    for k in prange(sums.shape[0]):
        for j in range(counts[k]):
            i = ids[k, j]
            for c in range(N_GRADIENT):
                value = FLOAT(0)
                for strip in range(STRIPS):
                    value += sums[k, strip, j, c]
                result[k, i, c] = value


class Blend(torch.autograd.Function):
    """Pictures [K,5,H,W] (red, green, blue, alpha, depth) of K = B·V views of B objects; see `Projected` for inputs."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, mean: Tensor, conic: Tensor, depth: Tensor, opacity: Tensor, rgb: Tensor, extent: Tensor,
        height: int, width: int, cap: float,
    ) -> Tensor:  # fmt: skip
        _match_threads()
        order = torch.where(extent[..., 0] > 0, depth, torch.inf).argsort(dim=1, stable=True)
        arrays = [_array(x) for x in (order, mean, conic, extent, depth, opacity, rgb)]
        pictures, n = depth.shape
        packed = np.empty((pictures, n, N_PACKED), FLOAT)
        ids = np.empty((pictures, n), np.int32)
        counts = np.empty(pictures, np.int64)
        pack(*arrays, height, width, packed, ids, counts)
        tiles_y, tiles_x = -(-height // TILE), -(-width // TILE)
        starts = np.empty((pictures, tiles_y * tiles_x + 1), np.int64)
        count_tiles(packed, counts, tiles_y, tiles_x, starts)
        offsets = np.concatenate([[0], np.cumsum(starts[:, -1])[:-1]])
        lists = np.empty(max(int(starts[:, -1].sum()), 1), np.int32)
        fill_tiles(packed, counts, tiles_y, tiles_x, starts, offsets, lists)
        out = np.empty((pictures, 5, tiles_y * TILE, tiles_x * TILE), FLOAT)
        forward(packed, starts, offsets, lists, tiles_y, tiles_x, FLOAT(cap), out)
        ctx.state = (packed, ids, counts, starts, offsets, lists, tiles_y, tiles_x, cap, out, height, width)
        ctx.objects = opacity.shape[0]
        return torch.from_numpy(out)[:, :, :height, :width]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        packed, ids, counts, starts, offsets, lists, tiles_y, tiles_x, cap, out, height, width = ctx.state
        _match_threads()
        pictures, n, _ = packed.shape
        grad = np.zeros_like(out)
        grad[:, :, :height, :width] = gradients[0].numpy()
        total = (out * grad).sum(axis=1)
        sums = np.zeros((pictures, STRIPS, n, N_GRADIENT), FLOAT)
        backward(packed, starts, offsets, lists, tiles_y, tiles_x, FLOAT(cap), total, grad, sums)
        result = np.zeros((pictures, n, N_GRADIENT), FLOAT)
        scatter(sums, ids, counts, result)
        full = torch.from_numpy(result)
        shared = full.unflatten(0, (ctx.objects, -1)).sum(dim=1)
        return (
            full[..., X : Y + 1], full[..., A : C + 1], full[..., DEPTH],
            shared[..., OPACITY], shared[..., RED : BLUE + 1], None, None, None, None,
        )  # fmt: skip


def blend(projected: Projected, height: int, width: int, cap: float) -> Tensor:
    """Pictures [B,V,5,H,W] of projected Gaussians, float32."""
    b, v = projected.depth.shape[:2]
    views = (x.flatten(0, 1) for x in (projected.mean, projected.conic, projected.depth))
    picture: Tensor = Blend.apply(
        *views, projected.opacity, projected.rgb, projected.extent.flatten(0, 1), height, width, cap
    )
    return picture.unflatten(0, (b, v))


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().contiguous().numpy()


def _match_threads() -> None:
    numba.set_num_threads(max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)))
