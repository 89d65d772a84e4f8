"""Cameras of the rasterizer, and where in an image a mesh is. c2w [4,4]: y-up world, OpenCV axes."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.raster.scene import RADIUS

MARGIN = 2
"""Pixels around the mesh that the filter may reach."""

COLUMNS = 16
"""Columns along an axis in which `around` looks."""
CORNERS = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])

Box = tuple[int, int, int, int]
"""Left, bottom, width and height, pixels; rows count from the bottom, as in OpenGL."""


def aim(program: Any, c2w: NDArray[np.float64], fov_y_deg: float, reach: float = RADIUS) -> None:
    """Set the camera: OpenGL looks along -z with y up, and its matrices are stored by columns.

    reach: radius of the sphere around the origin that contains the mesh.
    """
    w2c = np.linalg.inv(c2w @ np.diag([1.0, -1.0, -1.0, 1.0]))
    distance = float(np.linalg.norm(c2w[:3, 3]))
    near, far = max(distance - 1.1 * reach, 0.01), distance + 1.1 * reach
    f = 1 / math.tan(math.radians(fov_y_deg) / 2)
    projection = np.zeros((4, 4))
    projection[0, 0] = projection[1, 1] = f
    projection[2, 2:] = (near + far) / (near - far), 2 * near * far / (near - far)
    projection[3, 2] = -1.0
    program["world_to_camera"] = tuple(w2c.T.reshape(-1))
    program["projection"] = tuple(projection.T.reshape(-1))


def around(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points [P,3] whose convex hull contains all positions [N,3], and fits them more closely than a box.

    They are the corners of upright columns, each from the lowest to the highest position inside of it.
    """
    low, high = positions.min(axis=0), positions.max(axis=0)
    width = np.maximum(high - low, 1e-9)[:2] / COLUMNS
    column = np.minimum(((positions[:, :2] - low[:2]) / width).astype(np.int64), COLUMNS - 1)
    index = column @ [COLUMNS, 1]
    bottom, top = np.full(COLUMNS**2, np.inf), np.full(COLUMNS**2, -np.inf)
    np.minimum.at(bottom, index, positions[:, 2])
    np.maximum.at(top, index, positions[:, 2])
    used = np.flatnonzero(bottom <= top)
    edges = [low[:2] + (np.stack(np.divmod(used, COLUMNS), axis=-1) + corner) * width for corner in CORNERS]
    return np.concatenate([np.column_stack([edge, z[used]]) for edge in edges for z in (bottom, top)])


def covered(points: NDArray[np.float64], c2w: NDArray[np.float64], fov_y_deg: float, n: int) -> Box | None:
    """The rectangle of an image [n,n] that a mesh within the convex hull of points [P,3] covers, with a margin; the
    whole image if a part of it is behind the camera, None if it is outside.
    """
    local = (points - c2w[:3, 3]) @ c2w[:3, :3]
    if local[:, 2].min() <= 0:
        return 0, 0, n, n
    at = n / 2 + local[:, :2] / local[:, 2:] * n / (2 * math.tan(math.radians(fov_y_deg) / 2))
    (x0, y0), (x1, y1) = np.floor(at.min(axis=0)) - MARGIN, np.ceil(at.max(axis=0)) + MARGIN
    left, right = int(max(x0, 0)), int(min(x1, n))
    top, bottom = int(max(y0, 0)), int(min(y1, n))
    return (left, n - bottom, right - left, bottom - top) if right > left and bottom > top else None
