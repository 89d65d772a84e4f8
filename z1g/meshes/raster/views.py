"""Cameras of the rasterizer, and where in an image a mesh is. c2w [4,4]: y-up world, OpenCV axes."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.raster.scene import RADIUS

MARGIN = 2
"""Pixels around the mesh that the filter may reach."""

Box = tuple[int, int, int, int]
"""Left, bottom, width and height, pixels; rows count from the bottom, as in OpenGL."""


def aim(program: Any, c2w: NDArray[np.float64], fov_y_deg: float) -> None:
    """Set the camera: OpenGL looks along -z with y up, and its matrices are stored by columns."""
    w2c = np.linalg.inv(c2w @ np.diag([1.0, -1.0, -1.0, 1.0]))
    distance = float(np.linalg.norm(c2w[:3, 3]))
    near, far = max(distance - 1.1 * RADIUS, 0.01), distance + 1.1 * RADIUS
    f = 1 / math.tan(math.radians(fov_y_deg) / 2)
    projection = np.zeros((4, 4))
    projection[0, 0] = projection[1, 1] = f
    projection[2, 2:] = (near + far) / (near - far), 2 * near * far / (near - far)
    projection[3, 2] = -1.0
    program["world_to_camera"] = tuple(w2c.T.reshape(-1))
    program["projection"] = tuple(projection.T.reshape(-1))


def covered(
    bounds: tuple[NDArray[np.float64], NDArray[np.float64]], c2w: NDArray[np.float64], fov_y_deg: float, n: int
) -> Box | None:
    """The rectangle of an image [n,n] that a mesh within these bounds covers, with a margin; the whole image if a part
    of it is behind the camera, None if it is outside.
    """
    low, high = bounds
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    local = (corners - c2w[:3, 3]) @ c2w[:3, :3]
    if local[:, 2].min() <= 0:
        return 0, 0, n, n
    at = n / 2 + local[:, :2] / local[:, 2:] * n / (2 * math.tan(math.radians(fov_y_deg) / 2))
    (x0, y0), (x1, y1) = np.floor(at.min(axis=0)) - MARGIN, np.ceil(at.max(axis=0)) + MARGIN
    left, right = int(max(x0, 0)), int(min(x1, n))
    top, bottom = int(max(y0, 0)), int(min(y1, n))
    return (left, n - bottom, right - left, bottom - top) if right > left and bottom > top else None
