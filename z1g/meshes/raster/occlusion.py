"""Ambient occlusion: how much of the light from all around an object itself blocks, at every point of its surface.

Depth is drawn once an object as seen from many directions, side by side in one texture, in which the colors' program
looks which directions are free (as with shadow maps; Williams, 1978).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.raster.scene import RADIUS

COLUMNS, ROWS = 16, 8
TILE = 256
"""Side of the view from one direction, pixels."""
REACH = 1.01 * RADIUS
"""Half the width of such a view."""


class Occlusion:
    """Views of an object from COLUMNS · ROWS directions, for programs of `shaders.color_fragment`.

    uniforms: what these programs need to know.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._depth = context.depth_texture((COLUMNS * TILE, ROWS * TILE))
        self._depth.compare_func = ""  # read as numbers
        self._target = context.framebuffer([], self._depth)
        self.uniforms = {
            "directions": COLUMNS * ROWS, "columns": COLUMNS, "tile": TILE, "reach": REACH, "occluders": 3
        }  # fmt: skip

    def bake(self, programs: Sequence[Any], draw: Callable[[], None]) -> None:
        """Draw an object from all directions; `draw` renders its surfaces with these programs."""
        self._target.use()
        self._target.clear(depth=1.0)
        self._context.enable_only(self._context.DEPTH_TEST)
        for k, (right, up, towards) in enumerate(bases(COLUMNS * ROWS)):
            self._target.viewport = (k % COLUMNS * TILE, k // COLUMNS * TILE, TILE, TILE)
            for program in programs:
                program["right"], program["up"] = tuple(right / REACH), tuple(up / REACH)
                program["away"] = tuple(-towards / REACH)
            draw()
        self._depth.use(3)

    def release(self) -> None:
        """Free the memory of the GPU."""
        for item in (self._target, self._depth):
            item.release()


def bases(n: int) -> NDArray[np.float64]:
    """Right, up and direction [n,3,3] of n views from directions spread evenly, as the color's program computes them.

    Directions are on a Fibonacci lattice (Swinbank and Purser, 2006); the other axes are those of Duff et al. (2017).
    """
    k = np.arange(n)
    z = 1 - (2 * k + 1) / n
    angle = k * math.pi * (3 - math.sqrt(5))
    x, y = np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle)
    sign = np.where(z >= 0, 1.0, -1.0)
    a = -1 / (sign + z)
    b = x * y * a
    right = np.stack([1 + sign * x * x * a, sign * b, -sign * x], axis=-1)
    up = np.stack([b, sign + y * y * a, -y], axis=-1)
    return np.stack([right, up, np.stack([x, y, z], axis=-1)], axis=1)
