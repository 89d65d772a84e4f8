"""Files of one view of G-buffer Objaverse: camera, image, depth.

The interpretation follows the data set's examples (`dataset/gobjaverse` of modelscope/richdreamer): x, y and z of a
camera file are the camera's right, down and forward axes in a z-up world, the fourth channel of `_nd.exr` is planar
depth, and depth in front of the unit cube around the object is not a surface.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from z1g.core.files import read_json
from z1g.data.shards import BrokenObject
from z1g.geometry.camera import Y_UP_TO_Z_UP

CUBE_RADIUS = math.sqrt(3) / 2
"""Objects are inside the unit cube."""
FOV_RAD = 2 * math.atan(512 / 1422.222)
"""Field of view by the examples' focal length, for camera files without one."""


@dataclass(frozen=True)
class View:
    """A camera: c2w [4,4], y-up world, OpenCV axes, units of the data set; vertical field of view in degrees."""

    folder: Path
    c2w: NDArray[np.float64]
    fov_y_deg: float

    def file(self, ending: str) -> Path:
        """Path of the view's file with this ending."""
        return self.folder / f"{self.folder.name}{ending}"

    @property
    def direction(self) -> NDArray[np.float64]:
        """Unit vector [3] from the origin to the camera."""
        position = self.c2w[:3, 3]
        direction: NDArray[np.float64] = position / np.linalg.norm(position)
        return direction


def read_view(folder: Path) -> View:
    """Read the camera of a view's folder. Raises BrokenObject if its file is missing or invalid."""
    path = folder / f"{folder.name}.json"
    try:
        content = read_json(path)
        columns = [np.array(content[key], np.float64).reshape(3) for key in ("x", "y", "z", "origin")]
        fov = float(content.get("y_fov", content.get("x_fov", FOV_RAD)))
    except OSError as error:
        raise BrokenObject(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenObject(f"{path} is not a camera: {error!r}") from error
    c2w = np.eye(4)
    c2w[:3] = np.stack(columns, axis=1)
    rotation = c2w[:3, :3]
    rigid = np.allclose(rotation.T @ rotation, np.eye(3), atol=1e-3) and np.linalg.det(rotation) > 0
    if not (np.isfinite(c2w).all() and rigid and 0.01 < fov < 3 and np.linalg.norm(c2w[:3, 3]) > CUBE_RADIUS):
        raise BrokenObject(f"{path} is not a camera: its axes are not a rotation, or it is inside the object")
    return View(folder, Y_UP_TO_Z_UP.T @ c2w, math.degrees(fov))


def read_depth(view: View) -> NDArray[np.float32]:
    """Planar depth [H,W] of a view in units of the data set, 0 for background. Raises BrokenObject."""
    path = view.file("_nd.exr")
    if not path.is_file():
        raise BrokenObject(f"{path} is missing")
    import OpenEXR

    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            depth = np.asarray(file.channels()["A"].pixels, np.float32)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise BrokenObject(f"{path} has no depth: {error!r}") from error
    nearest = float(np.linalg.norm(view.c2w[:3, 3])) - CUBE_RADIUS
    return np.where(np.isfinite(depth) & (depth >= nearest), depth, np.float32(0))
