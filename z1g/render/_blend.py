"""Autograd function of the numba kernels."""

import threading
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from z1g.gaussians.channels import MIN_ALPHA
from z1g.geometry.camera import Cameras
from z1g.render import _ellipses as ellipses
from z1g.render import _kernels as kernels
from z1g.render._ellipses import DEPTH, FLOAT
from z1g.render._kernels import COLUMNS, JOBS, ROWS
from z1g.render.base import Conventions, RenderOutput
from z1g.render.projection import FOV_CLAMP, LARGEST, LOW_PASS_PX2, MIN_TRANSMITTANCE

Array = NDArray[Any]

_NUMBA_LOCK = threading.Lock()
"""Numba's `workqueue` threads, its default without OpenMP, abort the process on concurrent calls."""


def draw(gaussians: Tensor, cameras: Cameras, conventions: Conventions) -> RenderOutput:
    """Render Gaussians [B,N,14] from [B,V] cameras, all float32 on the CPU."""
    b, v = cameras.c2w.shape[:2]
    w2c = cameras.world_to_camera().detach().float()
    rgb, alpha, depth = _Draw.apply(gaussians.contiguous(), w2c, cameras, conventions)
    return RenderOutput(
        rgb.unflatten(0, (b, v)), alpha[:, None].unflatten(0, (b, v)), depth[:, None].unflatten(0, (b, v))
    )


class _Bodies(NamedTuple):
    """bodies [17,L] of the live Gaussians of all objects, their ids [L] in the object, and first [B+1]."""

    bodies: Array
    ids: Array
    first: Array


class _Seen(NamedTuple):
    """rows [R,10] and windows [R,4] of every live Gaussian in every image; bases [K+1]: first row of each image."""

    rows: Array
    windows: Array
    bases: Array


class _Lists(NamedTuple):
    """starts [K,tiles+1], offsets [K] and the concatenated lists of all images (see `fill_tiles`)."""

    starts: Array
    offsets: Array
    lists: Array


class _Draw(torch.autograd.Function):
    """rgb [K,3,H,W], alpha and depth [K,H,W] of K = B·V images."""

    @staticmethod
    def forward(
        ctx: Any, gaussians: Tensor, w2c: Tensor, cameras: Cameras, conventions: Conventions
    ) -> tuple[Tensor, ...]:
        ctx.cameras, ctx.conventions = cameras, conventions
        with _NUMBA_LOCK:
            _match_threads()
            bodies = _shape(gaussians.detach().numpy(), conventions)
            seen = _project(bodies, w2c.numpy(), cameras, conventions)
            lists = _list(seen, cameras)
            images = _blend(seen, lists, cameras, conventions)
        outputs = tuple(torch.from_numpy(x) for x in images)
        ctx.save_for_backward(gaussians, w2c, *(torch.from_numpy(x) for x in (*bodies, *seen, *lists)), *outputs)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = [x.detach().numpy() for x in ctx.saved_tensors]
        gaussians, w2c, bodies, seen = *saved[:2], _Bodies(*saved[2:5]), _Seen(*saved[5:8])
        lists, images = _Lists(*saved[8:11]), tuple(saved[11:])
        slopes = tuple(x.contiguous().numpy() for x in gradients)
        strips = -(-JOBS // max(len(lists.starts), 1))
        sums, result = np.zeros((strips, *seen.rows.shape), FLOAT), np.zeros_like(gaussians)
        lens, normalize = _lens(ctx.cameras, ctx.conventions), ctx.conventions.normalize_rotation
        with _NUMBA_LOCK:
            _match_threads()
            kernels.backward(*seen, *lists, _limits(ctx.conventions), images, slopes, sums)
            ellipses.unproject(gaussians, *bodies, w2c, lens, normalize, sums, result)
        return torch.from_numpy(result), None, None, None


def _shape(gaussians: Array, conventions: Conventions) -> _Bodies:
    objects, n, _ = gaussians.shape
    limits = FLOAT(LARGEST), FLOAT(MIN_ALPHA)
    counts = np.empty((objects, -(-n // ellipses.BLOCK)), np.int64)
    ellipses.count_live(gaussians, *limits, counts)
    places = (counts.cumsum() - counts.ravel()).reshape(counts.shape)
    first = np.concatenate([[0], counts.sum(axis=1).cumsum()])
    bodies, ids = np.empty((ellipses.N_BODY, first[-1]), FLOAT), np.empty(first[-1], np.int32)
    ellipses.shape(gaussians, *limits, conventions.normalize_rotation, places, ids, bodies)
    return _Bodies(bodies, ids, first)


def _project(bodies: _Bodies, w2c: Array, cameras: Cameras, conventions: Conventions) -> _Seen:
    bases = np.concatenate([[0], np.diff(bodies.first).repeat(w2c.shape[1]).cumsum()])
    rows, windows = np.empty((bases[-1], ellipses.N_ROW), FLOAT), np.empty((bases[-1], 4), np.int32)
    cut, size = conventions.footprint == "three_sigma", (cameras.height, cameras.width)
    ellipses.project(bodies.bodies, bodies.first, w2c, _lens(cameras, conventions), cut, *size, rows, windows)
    return _Seen(rows, windows, bases)


def _list(seen: _Seen, cameras: Cameras) -> _Lists:
    tiles_y, tiles_x = -(-cameras.height // ROWS), -(-cameras.width // COLUMNS)
    starts = np.empty((len(seen.bases) - 1, tiles_y * tiles_x + 1), np.int64)
    kernels.count_tiles(seen.windows, seen.bases, tiles_x, starts)
    offsets = starts[:, -1].cumsum() - starts[:, -1]
    lists = np.empty(starts[:, -1].sum(), np.int32)
    depth_bits = seen.rows.view(np.uint32)[:, DEPTH]
    kernels.fill_tiles(depth_bits, seen.windows, seen.bases, tiles_x, starts, offsets, lists)
    return _Lists(starts, offsets, lists)


def _blend(seen: _Seen, lists: _Lists, cameras: Cameras, conventions: Conventions) -> tuple[Array, ...]:
    k, size = len(lists.starts), (cameras.height, cameras.width)
    images = np.empty((k, 3, *size), FLOAT), np.empty((k, *size), FLOAT), np.empty((k, *size), FLOAT)
    kernels.forward(*seen, *lists, _limits(conventions), *images)
    return images


# Thresholds are arguments: kernels in numba's cache would keep an old global of another file.


def _lens(cameras: Cameras, conventions: Conventions) -> tuple[Any, ...]:
    clamp = 0.5 * FOV_CLAMP / cameras.focal
    numbers = cameras.focal, LOW_PASS_PX2, clamp * cameras.width, clamp * cameras.height, conventions.near
    return tuple(FLOAT(x) for x in numbers)


def _limits(conventions: Conventions) -> tuple[Any, ...]:
    flat = conventions.alpha_cap if conventions.cap_gradient == "zero" else np.inf
    return tuple(FLOAT(x) for x in (MIN_ALPHA, MIN_TRANSMITTANCE, conventions.alpha_cap, flat))


def _match_threads() -> None:
    threads = torch.get_num_threads()
    numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))
    # The first call starts numba's pool, which resets the OpenMP thread count that torch shares.
    torch.set_num_threads(threads)
