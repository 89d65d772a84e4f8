"""Stage 2's further objects: renders of fitted splats that were stretched, turned, mirrored and recolored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from z1g.core.seeding import numpy_generator
from z1g.data.manifest import int_hash
from z1g.data.scenes import condition_image
from z1g.gaussians.affine import transformed
from z1g.gaussians.channels import CHANNELS, to_gaussians
from z1g.geometry.camera import CONDITION_VIEW, FIXED_VIEWS, INPUT_VIEWS, Cameras, orbit_c2w, view_frame
from z1g.objectives import purposes
from z1g.objectives.augmentation import COLORS
from z1g.objectives.samples import Inputs

if TYPE_CHECKING:
    from z1g.config.sections import Variants
    from z1g.config.tree import Experiment

Array = NDArray[np.float64]
SOLID = 0.5
"""Opacity from which a Gaussian counts for an object's size."""
OUTERMOST = 0.002
"""Share of the solid Gaussians that may lie beyond an object's size: fits leave some astray."""


@dataclass(frozen=True)
class Change:
    """What makes a variant. matrix: [3,3] in the y-up world. order: of red, green and blue."""

    matrix: Array
    order: tuple[int, ...]
    condition_elevation_deg: float


def changes(options: Variants, config: Experiment, name: str) -> list[Change]:
    """The variants of one object: a pure function of its id and the options. `config` is stage 1's."""
    draw = numpy_generator(options.seed, int_hash(name), purposes.VARIANT)
    found = []
    for i in range(options.count):
        stretch = np.exp(draw.uniform(-1, 1, 3) * math.log1p(options.stretch))
        turn = math.radians(draw.uniform(-1, 1) * options.turn_deg)
        cosine, sine = math.cos(turn), math.sin(turn)
        matrix = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]) @ np.diag(stretch)
        if options.mirror and i % 2:
            matrix = np.diag([-1.0, 1.0, 1.0]) @ matrix
        other = COLORS[1 + draw.integers(len(COLORS) - 1)]
        order = other if draw.random() < options.recolored else COLORS[0]
        found.append(Change(matrix, order, draw.uniform(*config.camera.condition_elevation_deg)))
    return found


def changed(gaussians: Tensor, these: Sequence[Change], frame: Array) -> Tensor:
    """Variants [K,N,14] of Gaussians [1,N,14] in the view-1 frame, which `frame` [3,3] leads to from the y-up world.

    Ingest put each object in a ball around the origin; variants fill the ball that their object does.
    """
    maps = torch.from_numpy(np.stack([frame @ one.matrix @ frame.T for one in these])).to(gaussians)
    moved = transformed(gaussians.expand(len(these), -1, -1), maps)
    solid = gaussians[0, :, CHANNELS["opacity"]][:, 0] > SOLID
    shrink = _radius(gaussians, solid) / _radius(moved, solid)
    moved[..., CHANNELS["position"]] *= shrink[:, None, None]
    moved[..., CHANNELS["scale"]] *= shrink[:, None, None]
    first = CHANNELS["rgb"].start
    rows = torch.tensor([[*range(first), *(first + i for i in one.order)] for one in these], device=moved.device)
    return torch.take_along_dim(moved, rows[:, None], dim=2)


def _radius(gaussians: Tensor, solid: Tensor) -> Tensor:
    """Radius [K] of the ball around the origin that the solid ones of Gaussians [K,N,14] fill; 1 without any."""
    if not bool(solid.any()):
        return gaussians.new_ones(len(gaussians))
    distances = torch.linalg.vector_norm(gaussians[:, solid, CHANNELS["position"]], dim=-1).sort(dim=1).values
    radius: Tensor = distances[:, distances.shape[1] - 1 - int(OUTERMOST * distances.shape[1])]
    return radius.clamp(min=1e-6)


@dataclass(frozen=True)
class VariantImages:
    """Renders variants as stage 1 and the UNet see objects."""

    options: Variants
    config: Experiment
    """Stage 1's."""
    poses: Array
    """[7,4,4] of the condition and the inputs in the y-up world; each variant has its own elevation of the former."""
    side: int
    """Of the images that ingest made."""
    condition_size: int
    inputs: Inputs

    @torch.no_grad()
    def __call__(self, name: str, splats: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder sees of an object's variants [K,...], and their conditions [K,3,C,C], on the splats' device.

        splats: its splatter images [6,14,S,S].
        """
        these, camera = changes(self.options, self.config, name), self.config.camera
        frame = view_frame(self.poses, camera.radius)
        x, _, z = self.poses[CONDITION_VIEW, :3, 3]
        azimuth = math.degrees(math.atan2(x, z))
        poses = np.repeat(self.poses[None], len(these), axis=0)
        poses[:, CONDITION_VIEW] = [orbit_c2w(one.condition_elevation_deg, azimuth, camera.radius) for one in these]
        gaussians = changed(to_gaussians(splats[None].float()), these, frame[:3, :3])
        cameras = Cameras(torch.from_numpy(frame @ poses).to(gaussians), camera.fov_y_deg, self.side, self.side)
        drawn = self.config.render.render(gaussians, cameras)
        rgb, alpha = drawn.rgb.clamp(0, 1), drawn.alpha.clamp(0, 1)
        n = len(FIXED_VIEWS)
        inputs = slice(INPUT_VIEWS[0], n)
        seen = self.inputs(rgb[:, inputs], alpha[:, inputs], None)
        conditions = [condition_image(rgb[k, :1], alpha[k, :1], self.condition_size) for k in range(len(these))]
        return seen, torch.stack(conditions)
