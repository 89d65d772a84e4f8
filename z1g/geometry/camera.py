"""Cameras: poses, view layouts and conversions between coordinate conventions.

Inside z1g a pose is `c2w` [4,4], camera to world, column vectors, OpenCV camera axes (x right, y down, z forward),
world y up, normalized units (the object fits the sphere of radius 0.5). Splats are in the *view-1 frame*: the world
after the rigid transform that puts input view 1 at [0, 0, radius] with identity rotation in OpenGL axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from z1g.core.slots import MAX_SEED, OneOf, Section
from z1g.geometry.views import FreeViews
from z1g.geometry.views.base import Elevation
from z1g.geometry.views.random_sphere import RandomSphere

if TYPE_CHECKING:
    import torch
else:
    from z1g.core.lazy import torch

Array = NDArray[np.float64]

N_INPUTS = 6
CONDITION_VIEW = 0
INPUT_VIEWS = tuple(range(1, N_INPUTS + 1))
LossViews = Literal["train", "all"]
"""See `CameraOptions.loss_ids`."""
FIXED_VIEWS = (CONDITION_VIEW, *INPUT_VIEWS)
"""The views that every object has: the condition, then the six inputs."""
OPENCV_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""Right-multiplied to a c2w, converts the camera axes between OpenCV and OpenGL (its own inverse)."""
Y_UP_TO_Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]])
"""Left-multiplied to a c2w or a point, converts z1g's y-up to Blender's z-up world: (x, y, z) -> (x, -z, y)."""

_LAYOUT_ELEVATIONS = {"v1.1": (30.0, -20.0), "v1.2": (20.0, -10.0)}
_LAYOUT_AZIMUTHS = (30.0, 90.0, 150.0, 210.0, 270.0, 330.0)


class CameraOptions(Section):
    """Camera poses. View 0 is the condition, 1-6 are the inputs, then training, validation and test views follow."""

    fov_y_deg: float = Field(49.1, gt=1, lt=170, description="vertical field of view, degrees")
    radius: float = Field(1.5, gt=0.6, le=100, description="distance from the object's center, normalized units")
    layout: Literal["v1.1", "v1.2"] = Field(
        "v1.1", description="elevations of the six inputs: Zero123++ v1.1 is 30/-20 degrees, v1.2 is 20/-10"
    )
    condition_elevation_deg: tuple[Elevation, Elevation] = Field(
        (0.0, 30.0), description="range of the condition's elevation, drawn for each object"
    )
    free: Annotated[FreeViews, OneOf()] = RandomSphere()
    train_views: int = Field(35, ge=1, le=10_000, description="free views for fitting and training")
    validation_views: int = Field(
        4, ge=1, le=10_000, description="free views for early stopping of the fit and its best state"
    )
    test_views: int = Field(10, ge=1, le=10_000, description="free views that only the metrics use")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of the free and condition views")

    @model_validator(mode="after")
    def _range_rises(self) -> CameraOptions:
        low, high = self.condition_elevation_deg
        if low > high:
            raise ValueError(f"condition_elevation_deg {low:g} to {high:g} must rise")
        return self

    @model_validator(mode="after")
    def _enough_views(self) -> CameraOptions:
        requested, available = self.train_views + self.validation_views + self.test_views, self.free.available
        if available is not None and requested > available:
            raise ValueError(
                f"train_views {self.train_views}, validation_views {self.validation_views} and test_views "
                f"{self.test_views} are {requested} views; camera.free has {available} of this kind"
            )
        return self

    @property
    def train_ids(self) -> range:
        """Indices of the free training views."""
        return range(1 + N_INPUTS, 1 + N_INPUTS + self.train_views)

    def loss_ids(self, which: LossViews) -> range:
        """Indices of the views that losses compare: the free training views, or all views of an object."""
        return self.train_ids if which == "train" else range(self.n_views)

    @property
    def validation_ids(self) -> range:
        """Indices of the views that only early stopping uses."""
        return range(self.train_ids.stop, self.train_ids.stop + self.validation_views)

    @property
    def test_ids(self) -> range:
        """Indices of the views that only the metrics use."""
        return range(self.validation_ids.stop, self.validation_ids.stop + self.test_views)

    @property
    def input_angles(self) -> list[tuple[float, float]]:
        """Elevation, and azimuth relative to the condition's, of the six inputs, in degrees."""
        elevations = _LAYOUT_ELEVATIONS[self.layout]
        return [(elevations[i % 2], azimuth) for i, azimuth in enumerate(_LAYOUT_AZIMUTHS)]

    @property
    def n_views(self) -> int:
        """Number of views of an object, including the condition."""
        return self.test_ids.stop

    def poses(self, object_seed: int) -> Array:
        """Poses of all views of one object: c2w [n_views,4,4], y-up world, OpenCV axes.

        The condition has azimuth 0; the six inputs follow the Zero123++ layout (azimuth relative to the condition,
        elevation absolute); `free` gives the remaining views.
        """
        draw = np.random.default_rng([self.seed, object_seed])
        low, high = self.condition_elevation_deg
        angles = [(draw.uniform(low, high), 0.0)]
        angles += self.input_angles
        angles += self.free.angles(self.n_views - len(angles), draw)
        return np.stack([orbit_c2w(elevation, azimuth, self.radius) for elevation, azimuth in angles])


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras with centered principal point: c2w [B,V,4,4], one field of view and image shape."""

    c2w: torch.Tensor
    fov_y_deg: float
    height: int
    width: int

    @property
    def focal(self) -> float:
        """Focal length in pixels, the same along x and y."""
        return 0.5 * self.height / math.tan(math.radians(self.fov_y_deg) / 2)

    def intrinsics(self) -> torch.Tensor:
        """K [B,V,3,3] in pixels; pixel (i, j) covers [j, j+1] x [i, i+1], so its center is at +0.5."""
        return self._intrinsics

    def world_to_camera(self) -> torch.Tensor:
        """Inverse poses [B,V,4,4]: p_camera = w2c @ p_world."""
        return self._world_to_camera

    # Cached: on a GPU a dozen tiny kernels take a tenth of the time of rendering a small image.
    @cached_property
    def _intrinsics(self) -> torch.Tensor:
        matrix = _pinhole(self.focal, self.height, self.width, self.c2w.dtype, self.c2w.device)
        return matrix.repeat(*self.c2w.shape[:2], 1, 1)

    @cached_property
    def _world_to_camera(self) -> torch.Tensor:
        rotation = self.c2w[..., :3, :3].transpose(-1, -2)
        w2c = torch.zeros_like(self.c2w)
        w2c[..., :3, :3] = rotation
        w2c[..., :3, 3:] = -rotation @ self.c2w[..., :3, 3:]
        w2c[..., 3, 3] = 1
        return w2c

    def to(self, device: torch.device | str) -> Cameras:
        """The cameras on `device`; self if they are already on it."""
        moved = self.c2w.to(device)
        return self if moved is self.c2w else Cameras(moved, self.fov_y_deg, self.height, self.width)

    def views(self, ids: Sequence[int] | torch.Tensor) -> Cameras:
        """The cameras of the given views."""
        return Cameras(self.c2w[:, ids], self.fov_y_deg, self.height, self.width)


# Cached across cameras, too: a copy from host memory waits for everything that a GPU has yet to do.
@lru_cache(maxsize=32)
def _pinhole(focal: float, height: int, width: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """K [3,3] in pixels."""
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=dtype, device=device)


def orbit_c2w(elevation_deg: float, azimuth_deg: float, radius: float) -> Array:
    """Pose [4,4] of a camera that looks at the origin: position radius·(cos e sin a, sin e, cos e cos a), y up.

    Straight above or below, the azimuth determines the image's up direction.
    """
    e, a = math.radians(elevation_deg), math.radians(azimuth_deg)
    outward = np.array([math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)])
    right = np.array([math.cos(a), 0.0, -math.sin(a)])
    c2w = np.eye(4)
    c2w[:3, :3] = np.stack([right, np.cross(right, outward), -outward], axis=1)
    c2w[:3, 3] = radius * outward
    return c2w


def view_frame(c2w: Array, radius: float, view: int = INPUT_VIEWS[0]) -> Array:
    """Rigid transform [4,4] from the world into the frame in which `view` is at [0,0,radius], OpenGL identity.

    Apply to poses and points alike: c2w_new = T @ c2w, p_new = T @ p.
    """
    home = np.eye(4)
    home[2, 3] = radius
    return home @ OPENCV_TO_OPENGL @ np.linalg.inv(c2w[view])


def to_blender(c2w: Array) -> Array:
    """`matrix_world` [...,4,4] of a Blender camera (z-up world, OpenGL camera axes)."""
    return Y_UP_TO_Z_UP @ c2w @ OPENCV_TO_OPENGL


def from_blender(matrix_world: Array) -> Array:
    """Inverse of `to_blender`."""
    return Y_UP_TO_Z_UP.T @ matrix_world @ OPENCV_TO_OPENGL


def to_opengl(c2w: Array) -> Array:
    """The same pose [...,4,4] with OpenGL camera axes (x right, y up, z backward)."""
    return c2w @ OPENCV_TO_OPENGL


def from_original_orbit(elevation_deg: float, azimuth_deg: float, radius: float, cam_radius: float = 1.5) -> Array:
    """Pose of a view file {elevation, azimuth, radius} of the original, which scales positions by cam_radius / 1.5.

    The original negates the elevation in a formula with y down, which equals `orbit_c2w`.
    """
    return orbit_c2w(elevation_deg, azimuth_deg, radius * cam_radius / 1.5)


def turntable(n_frames: int, elevation_deg: float, radius: float) -> Array:
    """Poses [n_frames,4,4] of a full circle around the object, y-up world."""
    return np.stack([orbit_c2w(elevation_deg, 360.0 * i / n_frames, radius) for i in range(n_frames)])


def pixel_rays(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    """Ray of every pixel center: origins and directions [B,V,3,H,W] in the world, directions with camera-z length 1.

    A point at planar depth d is origin + d · direction.
    """
    c2w, (h, w) = cameras.c2w, (cameras.height, cameras.width)
    x = (torch.arange(w, dtype=c2w.dtype, device=c2w.device) + 0.5 - w / 2) / cameras.focal
    y = (torch.arange(h, dtype=c2w.dtype, device=c2w.device) + 0.5 - h / 2) / cameras.focal
    local = torch.stack([x.expand(h, w), y[:, None].expand(h, w), torch.ones_like(x).expand(h, w)])
    directions = torch.einsum("bvij,jhw->bvihw", c2w[..., :3, :3], local)
    return c2w[..., :3, 3, None, None].expand_as(directions), directions


def plucker_rays(cameras: Cameras) -> torch.Tensor:
    """Pluecker coordinates [B,V,6,H,W] of the ray of every pixel center: moment o × d, then unit direction d.

    They depend on the ray only, whichever of its points the origin o is (light field networks, Sitzmann et al. 2021).
    """
    origins, directions = pixel_rays(cameras)
    directions = directions / directions.norm(dim=2, keepdim=True)
    return torch.cat([torch.cross(origins, directions, dim=2), directions], dim=2)
