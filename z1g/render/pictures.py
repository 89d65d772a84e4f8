"""Pictures of splats from cameras around them: `z1g.render`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from z1g.gaussians.splats import Splats
from z1g.geometry.camera import Cameras, orbit_c2w
from z1g.render.auto import Auto
from z1g.render.base import Rasterizer
from z1g.render.images import to_bytes

Angle = float | Sequence[float] | NDArray[np.floating]
AT_ONCE = 8
"""Views rendered at once, which limits memory."""


@torch.no_grad()
def render(
    splats: Splats,
    azimuth: Angle = 0.0,
    elevation: Angle = 20.0,
    *,
    size: int = 512,
    radius: float = 1.5,
    fov_y_deg: float = 49.1,
    background: tuple[float, float, float] | None = (1.0, 1.0, 1.0),
    rasterizer: Rasterizer | None = None,
) -> list[Image.Image]:
    """Pictures of splats, on their device, from cameras that look at the origin.

    azimuth, elevation: degrees, numbers, or lists or arrays of one length; a number goes with each of the other list.
    Azimuth 0 is the photograph's side (+z), 90 the object's left (+x); elevation 90 is above. size: side of the square
    pictures, pixels. radius: distance of the cameras, above 0; fov_y_deg: their field of view, between 0 and 180; the
    defaults are those of training.
    background: red, green and blue in 0..1; None gives RGBA pictures. rasterizer: default is gsplat on a GPU, else the
    CPU's.

    Raises ValueError for lists of two lengths and for numbers out of their range.
    """
    _check(size, radius, fov_y_deg, background)
    poses = np.stack([orbit_c2w(e, a, radius) for a, e in _pairs(azimuth, elevation)])
    cameras = Cameras(torch.from_numpy(poses).float()[None].to(splats.tensor.device), fov_y_deg, size, size)
    drawer, pictures = rasterizer or Auto(), []
    for ids in torch.arange(len(poses)).split(AT_ONCE):
        output = drawer.render(splats.tensor[None], cameras.views(ids))
        for rgb, alpha in zip(output.rgb[0], output.alpha[0], strict=True):
            pictures.append(_picture(rgb, alpha, background))
    return pictures


def _check(size: int, radius: float, fov_y_deg: float, background: tuple[float, float, float] | None) -> None:
    """Raise ValueError for numbers with which nothing, or something else, would be seen."""
    if size < 1:
        raise ValueError(f"size {size} must be at least 1 pixel")
    if not 0 < radius < math.inf:
        raise ValueError(f"radius {radius} must be above 0 and finite")
    if not 0 < fov_y_deg < 180:
        raise ValueError(f"fov_y_deg {fov_y_deg} must be between 0 and 180 degrees")
    if background is not None and not (len(background) == 3 and all(0 <= x <= 1 for x in background)):
        raise ValueError(f"background {background} must be red, green and blue in 0..1, or None")


def _pairs(azimuth: Angle, elevation: Angle) -> list[tuple[float, float]]:
    """Azimuth and elevation of every camera."""
    angles = [np.asarray(x, dtype=np.float64) for x in (azimuth, elevation)]
    lengths = {x.size for x in angles if x.ndim} or {1}
    if len(lengths) > 1 or 0 in lengths or max(x.ndim for x in angles) > 1:
        shapes = [list(x.shape) for x in angles]
        raise ValueError(f"azimuths and elevations must be numbers or lists of one length, not of shapes {shapes}")
    if not all(np.isfinite(x).all() for x in angles):
        raise ValueError(f"azimuth {azimuth} and elevation {elevation} must be finite numbers")
    azimuths, elevations = (np.broadcast_to(x, tuple(lengths)).tolist() for x in angles)
    return list(zip(azimuths, elevations, strict=True))


def _picture(rgb: torch.Tensor, alpha: torch.Tensor, background: tuple[float, float, float] | None) -> Image.Image:
    """A picture of premultiplied color [3,H,W] and alpha [1,H,W]."""
    if background is None:
        straight = rgb / alpha.clamp(min=1e-6)
        return Image.fromarray(to_bytes(torch.cat([straight, alpha])))
    return Image.fromarray(to_bytes(rgb + (1 - alpha) * rgb.new_tensor(background)[:, None, None]))
