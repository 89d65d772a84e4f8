"""Pictures of splats from cameras around them: `z1g.render`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from z1g.gaussians.splats import Splats
from z1g.geometry.camera import Cameras, orbit_c2w
from z1g.render.auto import Auto
from z1g.render.base import Rasterizer
from z1g.render.images import to_bytes

Angle = float | Sequence[float]
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

    azimuth, elevation: degrees, numbers or lists of one length; a number goes with each of the other list. Azimuth 0 is
    the photograph's side (+z), 90 the object's left (+x); elevation 90 is above. size: side of the square pictures,
    pixels. radius: distance of the cameras, fov_y_deg: their field of view; the defaults are those of training.
    background: red, green and blue in 0..1; None gives RGBA pictures. rasterizer: default is gsplat on a GPU, else the
    CPU's.

    Raises ValueError for lists of two lengths or a size below 1.
    """
    if size < 1:
        raise ValueError(f"size {size} must be at least 1 pixel")
    poses = np.stack([orbit_c2w(e, a, radius) for a, e in _pairs(azimuth, elevation)])
    cameras = Cameras(torch.from_numpy(poses).float()[None].to(splats.tensor.device), fov_y_deg, size, size)
    drawer, pictures = rasterizer or Auto(), []
    for ids in torch.arange(len(poses)).split(AT_ONCE):
        output = drawer.render(splats.tensor[None], cameras.views(ids))
        for rgb, alpha in zip(output.rgb[0], output.alpha[0], strict=True):
            pictures.append(_picture(rgb, alpha, background))
    return pictures


def _pairs(azimuth: Angle, elevation: Angle) -> list[tuple[float, float]]:
    """Azimuth and elevation of every camera."""
    lists = [list(x) if isinstance(x, Sequence) else None for x in (azimuth, elevation)]
    lengths = {len(x) for x in lists if x is not None} or {1}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(f"azimuths and elevations must be numbers or lists of one length, not {sorted(lengths)}")
    (length,) = lengths
    first, second = (x if x is not None else [y] * length for x, y in zip(lists, (azimuth, elevation), strict=True))
    return [(float(a), float(e)) for a, e in zip(first, second, strict=True)]  # type: ignore[arg-type]


def _picture(rgb: torch.Tensor, alpha: torch.Tensor, background: tuple[float, float, float] | None) -> Image.Image:
    """A picture of premultiplied color [3,H,W] and alpha [1,H,W]."""
    if background is None:
        straight = rgb / alpha.clamp(min=1e-6)
        return Image.fromarray(to_bytes(torch.cat([straight, alpha])))
    return Image.fromarray(to_bytes(rgb + (1 - alpha) * rgb.new_tensor(background)[:, None, None]))
