"""What outputs are registered to and checked against: an object's true views, other than its test views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from z1g.data.shards import RenderedObject
from z1g.geometry.camera import CONDITION_VIEW, INPUT_VIEWS, Cameras, pixel_rays

LARGEST = 128
"""Side of the images that are compared, pixels."""
FREE_VIEWS = 2
"""Training views beside the condition and the inputs. Test views are not looked at."""
GRID = 40
"""Points along an axis of the visual hull, for objects without depth."""


@dataclass(frozen=True)
class Target:
    """Cameras [1,V] in the y-up world; rgb [V,3,h,w], premultiplied; alpha, depth [V,1,h,w], 0 where unknown."""

    cameras: Cameras
    rgb: Tensor
    alpha: Tensor
    depth: Tensor

    @classmethod
    def of(cls, item: RenderedObject, free: Sequence[int], largest: int = LARGEST) -> Target:
        """The condition, the inputs and the first free views of an object, no larger than `largest` pixels."""
        views = [CONDITION_VIEW, *INPUT_VIEWS, *free[:FREE_VIEWS]]
        rgba = torch.from_numpy(item.rgba[views]).permute(0, 3, 1, 2).float() / 255
        side = int(rgba.shape[-1])
        # A whole fraction: each pixel is then a mean of whole pixels.
        small = next(s for s in range(min(side, largest), 0, -1) if side % s == 0)
        alpha = functional.interpolate(rgba[:, 3:], size=(small, small), mode="area")
        rgb = functional.interpolate(rgba[:, :3] * rgba[:, 3:], size=(small, small), mode="area")
        depth = torch.zeros_like(alpha)
        if item.depth is not None:
            depth[1 : 1 + len(INPUT_VIEWS), 0] = _smaller(torch.from_numpy(item.depth.astype(np.float32)), small)
        poses = torch.from_numpy(item.c2w[views]).float()[None]
        return cls(Cameras(poses, item.fov_y_deg, small, small), rgb, alpha, depth)

    def points(self) -> NDArray[np.float64]:
        """Points [N,3] of the object's surface in the world: of its depth, or else of its visual hull."""
        known = self.depth[:, 0] > 0
        if not known.any():
            return self._hull()
        origins, directions = pixel_rays(self.cameras)
        points = origins[0] + self.depth * directions[0]
        found: NDArray[np.float64] = points.permute(0, 2, 3, 1)[known].double().numpy()
        return found

    def _hull(self) -> NDArray[np.float64]:
        """Grid points inside all silhouettes."""
        line = torch.linspace(-0.5, 0.5, GRID)
        grid = torch.cartesian_prod(line, line, line)
        inside = torch.ones(len(grid), dtype=torch.bool)
        w2c, k = self.cameras.world_to_camera()[0], self.cameras.intrinsics()[0]
        for view in range(len(self.alpha)):
            local = grid @ w2c[view, :3, :3].T + w2c[view, :3, 3]
            pixel = (local @ k[view].T)[:, :2] / local[:, 2:]
            seen = pixel / self.cameras.width * 2 - 1
            sampled = functional.grid_sample(self.alpha[view][None], seen[None, None], align_corners=False)
            inside &= sampled[0, 0, 0] > 0.5
        found: NDArray[np.float64] = grid[inside].double().numpy()
        return found


def _smaller(depth: Tensor, side: int) -> Tensor:
    """Depth [V,H,W] at side × side: the mean of each block where all of it is covered, else 0."""
    block = depth.shape[-1] // side
    blocks = depth.unfold(1, block, block).unfold(2, block, block).flatten(3)
    return torch.where((blocks > 0).all(dim=-1), blocks.mean(dim=-1), torch.zeros(()))
