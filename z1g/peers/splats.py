"""Splats of other systems, with colors that may depend on the direction of view."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from z1g.core.device import default_device
from z1g.gaussians import files
from z1g.gaussians.affine import transformed
from z1g.gaussians.channels import CHANNELS
from z1g.gaussians.harmonics import seen_color
from z1g.gaussians.ply import SH_C0, Y_UP_TO_Y_DOWN
from z1g.gaussians.rotations import shortest_axes
from z1g.geometry.camera import Cameras
from z1g.geometry.frames import Color
from z1g.peers.content import Array, Cloud, Content, Drawn
from z1g.render import Rasterizer


@dataclass(frozen=True)
class Splats(Content):
    """Activated Gaussians [N,14]; harmonics [N,K,3] above degree 0, or None.

    to_harmonics: [3,3], from directions in the world to those of the harmonics, up to a factor.
    """

    gaussians: Tensor
    harmonics: Tensor | None
    to_harmonics: Array
    rasterizer: Rasterizer
    kind: ClassVar[str] = "splats"  # type: ignore[misc]

    def moved(self, matrix: Array) -> Splats:
        linear = torch.from_numpy(matrix[:3, :3].copy())
        gaussians = transformed(self.gaussians[None].double(), linear[None])[0]
        gaussians[:, CHANNELS["position"]] += torch.from_numpy(matrix[:3, 3].copy())
        turned = self.to_harmonics @ np.linalg.inv(matrix[:3, :3])
        return replace(self, gaussians=gaussians.to(self.gaussians), to_harmonics=turned)

    @torch.no_grad()
    def draw(self, cameras: Cameras) -> Drawn:
        device = default_device()
        moved, seen = cameras.to(device), self.gaussians.to(device)
        if self.harmonics is None:
            drawn = self.rasterizer.render(seen[None], moved)
            return Drawn(drawn.rgb[0], drawn.alpha[0], drawn.depth[0])
        views = [
            self.rasterizer.render(self._from(moved.c2w[0, i, :3, 3], seen)[None], moved.views([i]))
            for i in range(moved.c2w.shape[1])
        ]
        images = (torch.cat([getattr(view, name)[0] for view in views]) for name in ("rgb", "alpha", "depth"))
        return Drawn(*images)

    def _from(self, camera: Tensor, gaussians: Tensor) -> Tensor:
        """The Gaussians with the colors that a camera at [3] sees."""
        assert self.harmonics is not None
        turn = torch.from_numpy(self.to_harmonics).to(gaussians)
        directions = (gaussians[:, CHANNELS["position"]] - camera.to(gaussians)) @ turn.T
        colored = gaussians.clone()
        rgb = gaussians[:, CHANNELS["rgb"]]
        colored[:, CHANNELS["rgb"]] = seen_color(rgb, self.harmonics.to(gaussians), directions)
        return colored

    def cloud(self) -> Cloud:
        """Centers; a normal is a Gaussian's shortest axis."""
        x = self.gaussians.double()
        return Cloud(x[:, CHANNELS["position"]], x[:, CHANNELS["opacity"]][:, 0], shortest_axes(x))


def read_splats(path: Path, rasterizer: Rasterizer, color: Color) -> Splats:
    """Splats of a file in the coordinates that a `.ply` of theirs has, whatever the format. Raises UserError."""
    colored = files.read_colored(path)
    gaussians = colored.gaussians
    if color == "sigmoid":
        rgb = (gaussians[:, CHANNELS["rgb"]] - 0.5) / SH_C0
        gaussians[:, CHANNELS["rgb"]] = torch.sigmoid(rgb)
    upright = Splats(gaussians, colored.harmonics, colored.axes, rasterizer)
    return upright.moved(Y_UP_TO_Y_DOWN)
