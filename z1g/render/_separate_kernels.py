"""Triton kernels that separate Gaussians [B,N,14] for gsplat, in one pass over memory, and gather their gradients.

A program has ROWS of the N Gaussians of one object. Padded to 16 channels, they are one tile: 0 to 2 are the position,
3 the opacity, 4 to 6 the scale, 7 to 10 the rotation, 11 to 13 the color. These are not global constants, which Triton
compares at every launch.
"""

import triton
import triton.language as tl


@triton.jit
def rows_of_object(n, ROWS: tl.constexpr):
    """Rows of this program among those of its object, those among all, and which are Gaussians."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    return rows, tl.program_id(1).to(tl.int64) * n + rows, rows < n


@triton.jit
def of_camera(rows, n, view, views):
    """Rows of a camera's copies of an object's Gaussians, [B,V,N]."""
    return (tl.program_id(1).to(tl.int64) * views + view) * n + rows


@triton.jit
def chosen(inside, FIRST: tl.constexpr, LAST: tl.constexpr):
    """Mask of the channels from FIRST to before LAST."""
    channels = tl.arange(0, 16)[None, :]
    return inside[:, None] & (channels >= FIRST) & (channels < LAST)


@triton.jit
def columns(rows, width, FIRST: tl.constexpr):
    """Offsets of channels in rows of `width` values, of which FIRST is the first."""
    return rows.to(tl.int64)[:, None] * width + tl.arange(0, 16)[None, :] - FIRST


@triton.jit
def keep(values, out, rows, inside, width, FIRST: tl.constexpr, LAST: tl.constexpr):
    """Store some channels of a tile in rows of `width` values."""
    tl.store(out + columns(rows, width, FIRST), values, mask=chosen(inside, FIRST, LAST))


@triton.jit
def taken(source, rows, inside, width, FIRST: tl.constexpr, LAST: tl.constexpr):
    """The inverse of `keep`: a tile with zeros in all other channels."""
    return tl.load(source + columns(rows, width, FIRST), mask=chosen(inside, FIRST, LAST), other=0.0)


@triton.jit(do_not_specialize=["n", "views"])
def separate(
    gaussians, position, opacity, scale, rotation, opacities, colors, n, views,
    LARGEST: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Store attributes, opacities [B,V,N] and the first three channels of colors [B,V,N,4]; see `Separated`."""
    rows, among_all, inside = rows_of_object(n, ROWS)
    values = taken(gaussians, among_all, inside, 14, 0, 14)
    # False for NaN.
    usable = tl.min((tl.abs(values) < LARGEST).to(tl.int32), axis=1) > 0
    unused = tl.where(tl.arange(0, 16) == 7, 1.0, 0.0)
    values = tl.where(usable[:, None], values, unused[None, :])
    keep(values, position, among_all, inside, 3, 0, 3)
    keep(values, opacity, among_all, inside, 1, 3, 4)
    keep(values, scale, among_all, inside, 3, 4, 7)
    keep(values, rotation, among_all, inside, 4, 7, 11)
    for view in range(views):
        seen = of_camera(rows, n, view, views)
        keep(values, opacities, seen, inside, 1, 3, 4)
        keep(values, colors, seen, inside, 4, 11, 14)


@triton.jit(do_not_specialize=["n", "views"])
def gather(position, scale, rotation, opacities, colors, out, n, views, ROWS: tl.constexpr):
    """out [B,N,14] = gradients of attributes, and the sums over cameras of those of opacities and colors."""
    rows, among_all, inside = rows_of_object(n, ROWS)
    values = taken(position, among_all, inside, 3, 0, 3)
    values += taken(scale, among_all, inside, 3, 4, 7)
    values += taken(rotation, among_all, inside, 4, 7, 11)
    for view in range(views):
        seen = of_camera(rows, n, view, views)
        values += taken(opacities, seen, inside, 1, 3, 4)
        values += taken(colors, seen, inside, 4, 11, 14)
    keep(values, out, among_all, inside, 14, 0, 14)
