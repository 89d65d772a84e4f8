"""The place of the numba kernels in autograd."""

import threading
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from z1g.render import _kernels as kernels
from z1g.render._kernels import DEPTH, FLOAT, JOBS, N_GRADIENT, N_PACKED, OPACITY, RED, TILE, A, X
from z1g.render._project import Projected

Arrays = tuple[NDArray[Any], ...]

_ONE_AT_A_TIME = threading.Lock()
"""Numba's `workqueue` threads, its choice where OpenMP is missing, end the process when two callers meet in them."""


class Blend(torch.autograd.Function):
    """Pictures [K,5,H,W] (red, green, blue, alpha, depth) of K = B·V views of B objects; see `Projected` for inputs."""

    @staticmethod
    def forward(
        ctx: Any, mean: Tensor, conic: Tensor, depth: Tensor, opacity: Tensor, rgb: Tensor, extent: Tensor,
        height: int, width: int, cap: float,
    ) -> Tensor:  # fmt: skip
        order = torch.where(extent[:, 0] > 0, depth, torch.inf).argsort(dim=1, stable=True)
        arrays = [x.detach().contiguous().numpy() for x in (order, mean, conic, extent, depth, opacity, rgb)]
        with _ONE_AT_A_TIME:
            _match_threads()
            state = _draw(arrays, height, width, cap)
        tensors = [torch.from_numpy(x) for x in state]
        ctx.save_for_backward(*tensors)
        ctx.cap, ctx.objects = cap, opacity.shape[0]
        return tensors[-1][:, :, :height, :width]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        state = tuple(x.numpy() for x in ctx.saved_tensors)
        with _ONE_AT_A_TIME:
            _match_threads()
            result = torch.from_numpy(_undraw(state, gradients[0].numpy(), ctx.cap))
        shared = result[:, OPACITY:].unflatten(0, (ctx.objects, -1)).sum(dim=1)
        return (
            result[:, X:A], result[:, A:OPACITY], result[:, DEPTH],
            shared[:, 0], shared[:, RED - OPACITY :], None, None, None, None,
        )  # fmt: skip


def blend(projected: Projected, height: int, width: int, cap: float) -> Tensor:
    """Pictures [B,V,5,H,W] of projected Gaussians, float32."""
    b, v = projected.depth.shape[:2]
    views = (x.flatten(0, 1) for x in (projected.mean, projected.conic, projected.depth))
    picture: Tensor = Blend.apply(
        *views, projected.opacity, projected.rgb, projected.extent.flatten(0, 1), height, width, cap
    )
    views_apart: Tensor = picture.unflatten(0, (b, v))
    return views_apart


def _draw(arrays: list[NDArray[Any]], height: int, width: int, cap: float) -> Arrays:
    """Packed Gaussians, their ids and number, tile lists (starts, offsets, lists), pictures padded to whole tiles."""
    pictures, n = arrays[0].shape
    packed = np.empty((pictures, n, N_PACKED), FLOAT)
    ids = np.empty((pictures, n), np.int32)
    counts = np.empty(pictures, np.int64)
    kernels.pack(*arrays, height, width, packed, ids, counts)
    tiles_y, tiles_x = -(-height // TILE), -(-width // TILE)
    starts = np.empty((pictures, tiles_y * tiles_x + 1), np.int64)
    kernels.count_tiles(packed, counts, tiles_y, tiles_x, starts)
    offsets = np.cumsum(starts[:, -1]) - starts[:, -1]
    lists = np.empty(max(int(starts[:, -1].sum()), 1), np.int32)
    kernels.fill_tiles(packed, counts, tiles_y, tiles_x, starts, offsets, lists)
    out = np.empty((pictures, 5, tiles_y * TILE, tiles_x * TILE), FLOAT)
    kernels.forward(packed, starts, offsets, lists, tiles_y, tiles_x, FLOAT(cap), out)
    return packed, ids, counts, starts, offsets, lists, out


def _undraw(state: Arrays, gradient: NDArray[Any], cap: float) -> NDArray[Any]:
    """Gradients [K,10,N] of the packed numbers from those of the pictures [K,5,H,W]."""
    packed, ids, counts, starts, offsets, lists, out = state
    pictures, n, _ = packed.shape
    tiles_y, tiles_x = out.shape[2] // TILE, out.shape[3] // TILE
    padded = np.zeros_like(out)
    padded[:, :, : gradient.shape[2], : gradient.shape[3]] = gradient
    total = np.einsum("kchw,kchw->khw", out, padded)
    sums = np.zeros((pictures, -(-JOBS // pictures), n, N_GRADIENT), FLOAT)
    kernels.backward(packed, starts, offsets, lists, tiles_y, tiles_x, FLOAT(cap), total, padded, sums)
    result = np.zeros((pictures, N_GRADIENT, n), FLOAT)
    kernels.scatter(sums, ids, counts, result)
    return result


def _match_threads() -> None:
    threads = torch.get_num_threads()
    numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))
    # The first call starts numba's pool, which resets the OpenMP thread count that torch uses too.
    torch.set_num_threads(threads)
