"""Films of splats along a camera path, which `z1g view` records."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from scipy.interpolate import CubicHermiteSpline
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.files import read_bytes
from z1g.core.progress import Meter
from z1g.core.slots import Section, first_reason
from z1g.geometry.camera import Cameras, orbit_c2w
from z1g.render import Rasterizer
from z1g.render.images import to_bytes
from z1g.surface.views import FOV_Y_DEG, RADIUS, Frame

FRAMES_PER_SECOND = 24
TURN_S, TURN_ELEVATION_DEG = 4.0, 20.0
"""The film without a path: one turn."""
STEEPEST_DEG = math.degrees(1.5)
"""Elevation at which the viewer stops."""
LARGEST_BYTES = 2**20

View = tuple[float, float, float]
"""Azimuth and elevation in degrees, and zoom: a factor on the focal length."""


class Keyframe(Section):
    """One view of a camera path."""

    azimuth_deg: float = Field(ge=-1e5, le=1e5)
    elevation_deg: float = Field(ge=-90, le=90)
    zoom: float = Field(1.0, ge=0.05, le=50)


class CameraPath(Section):
    """Views at equal intervals of time. Azimuths count on beyond 360 degrees."""

    kind: Literal["camera path"]
    version: Literal[1]
    seconds: float = Field(ge=0.1, le=600)
    keyframes: list[Keyframe] = Field(min_length=2, max_length=100)

    @classmethod
    def read(cls, path: Path) -> CameraPath:
        """Read a file that the viewer has saved. Raises UserError."""
        try:
            return cls.model_validate_json(read_bytes(path, LARGEST_BYTES))
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
        except ValidationError as error:
            raise UserError(f"{path} is no camera path: {first_reason(error)}; save one in z1g view") from error

    def views(self, n: int) -> list[View]:
        """Views at `n` times from the first keyframe to the last.

        A cubic Hermite spline of azimuth, elevation and log zoom, with tangents by Catmull and Rom (1974) inside and
        zero at the ends, as `alongPath` of z1g/render/splat_tools.js.
        """
        values = np.array([(k.azimuth_deg, k.elevation_deg, math.log(k.zoom)) for k in self.keyframes])
        tangents = np.zeros_like(values)
        tangents[1:-1] = (values[2:] - values[:-2]) / 2
        times = np.linspace(0, len(values) - 1, n)
        azimuth, elevation, zoom = CubicHermiteSpline(np.arange(len(values)), values, tangents)(times).T
        steep = elevation.clip(-STEEPEST_DEG, STEEPEST_DEG)
        return list(zip(azimuth.tolist(), steep.tolist(), np.exp(zoom).tolist(), strict=True))


def one_turn() -> list[View]:
    """Views of a turn around an object."""
    n = round(TURN_S * FRAMES_PER_SECOND)
    return [(360 * i / n, TURN_ELEVATION_DEG, 1.0) for i in range(n)]


def views_of(path: CameraPath | None) -> list[View]:
    """The views of a film's frames; without a path, those of one turn."""
    return one_turn() if path is None else path.views(max(2, round(path.seconds * FRAMES_PER_SECOND)))


def camera(view: View, size: int) -> Cameras:
    """The viewer's camera [1,1] of a view of an object in the sphere of radius 0.5."""
    azimuth, elevation, zoom = view
    c2w = torch.from_numpy(orbit_c2w(elevation, azimuth, RADIUS)).float()
    fov = 2 * math.degrees(math.atan(math.tan(math.radians(FOV_Y_DEG) / 2) / zoom))
    return Cameras(c2w[None, None], fov, size, size)


@torch.no_grad()
def frames(
    objects: Sequence[Tensor], views: Sequence[View], rasterizer: Rasterizer, size: int
) -> Iterator[NDArray[np.uint8]]:
    """Frames [size,size·len(objects),3] of Gaussians [N,14] on white, side by side, each scaled to the same size.

    Raises UserError if one is not an object.
    """
    scaled = [Frame.around(gaussians).enter(gaussians)[None] for gaussians in objects]
    with Meter("frames", len(views)) as meter:
        for view in views:
            images = [
                rasterizer.render(gaussians, camera(view, size).to(gaussians.device)).over(1.0)[0, 0]
                for gaussians in scaled
            ]
            yield np.concatenate([to_bytes(image) for image in images], axis=1)
            meter.advance()
