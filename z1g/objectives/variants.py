"""Synthetic objects of stage 2: fitted splats that are stretched, turned, mirrored, recolored and rendered."""

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
from z1g.data.condition_form import ConditionForm
from z1g.data.conditions import condition_image
from z1g.data.manifest import int_hash
from z1g.gaussians.affine import transformed
from z1g.gaussians.channels import CHANNELS, to_gaussians
from z1g.geometry.camera import CONDITION_VIEW, FIXED_VIEWS, INPUT_VIEWS, Cameras, orbit_c2w, view_frame
from z1g.objectives import purposes
from z1g.objectives.augmentation import COLORS, Symmetry, symmetries, turned
from z1g.objectives.samples import Inputs

if TYPE_CHECKING:
    from z1g.config.sections import Variants
    from z1g.config.tree import Experiment

Array = NDArray[np.float64]
SOLID = 0.5
"""Minimum opacity of Gaussians that determine an object's size."""
OUTERMOST = 0.002
"""Fraction of the solid Gaussians that is ignored as outliers of the fit."""


@dataclass(frozen=True)
class Change:
    """Transformation of an object to a variant.

    matrix: [3,3] in the y-up world. order: of red, green and blue. side: index of the symmetry of the input cameras by
    which the variant is moved after `matrix`.
    """

    matrix: Array
    order: tuple[int, ...]
    condition_elevation_deg: float
    side: int = 0


def changes(options: Variants, config: Experiment, name: str, n_sides: int = 1) -> list[Change]:
    """The variants of one object, a pure function of its id and the options. `config` is that of stage 1.

    n_sides: number of symmetries of the input cameras, which variants have in turn; 1 for the identity alone.
    """
    draw = numpy_generator(options.seed, int_hash(name), purposes.VARIANT)
    variants = []
    for i in range(options.count):
        stretch = np.exp(draw.uniform(-1, 1, 3) * math.log1p(options.stretch))
        turn = math.radians(draw.uniform(-1, 1) * options.turn_deg)
        cosine, sine = math.cos(turn), math.sin(turn)
        matrix = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]) @ np.diag(stretch)
        if options.mirror and i % 2:
            matrix = np.diag([-1.0, 1.0, 1.0]) @ matrix
        permuted = COLORS[1 + draw.integers(len(COLORS) - 1)]
        order = permuted if draw.random() < options.recolored else COLORS[0]
        variants.append(Change(matrix, order, draw.uniform(*config.camera.condition_elevation_deg), i % n_sides))
    return variants


def changed(gaussians: Tensor, variants: Sequence[Change], frame: Array, sides: Sequence[Symmetry]) -> Tensor:
    """Variants [K,N,14] of Gaussians [1,N,14] in the view-1 frame; `frame` [3,3] maps from the y-up world to it.

    Ingest scales each object to a ball around the origin; variants are scaled to the ball of their object. sides: the
    symmetries of the input cameras that `Change.side` counts.
    """
    matrices = [sides[variant.side].matrix @ frame @ variant.matrix @ frame.T for variant in variants]
    maps = torch.from_numpy(np.stack(matrices)).to(gaussians)
    moved = transformed(gaussians.expand(len(variants), -1, -1), maps)
    solid = gaussians[0, :, CHANNELS["opacity"]][:, 0] > SOLID
    shrink = _radius(gaussians, solid) / _radius(moved, solid)
    moved[..., CHANNELS["position"]] *= shrink[:, None, None]
    moved[..., CHANNELS["scale"]] *= shrink[:, None, None]
    return torch.take_along_dim(moved, _channels(variants, moved.device)[:, None], dim=2)


def unfitted(splats: Tensor, variants: Sequence[Change], sides: Sequence[Symmetry]) -> Tensor:
    """Splatter images [K,6,14,S,S] of variants of [6,14,S,S] that differ only in colors and by a symmetry."""
    images = torch.stack([turned(splats, sides[variant.side]) for variant in variants])
    return torch.take_along_dim(images, _channels(variants, splats.device)[:, None, :, None, None], dim=2)


def _channels(variants: Sequence[Change], device: torch.device) -> Tensor:
    """For each variant and channel [K,14], the channel of the object that it gets."""
    first = CHANNELS["rgb"].start
    return torch.tensor([[*range(first), *(first + i for i in variant.order)] for variant in variants], device=device)


def _radius(gaussians: Tensor, solid: Tensor) -> Tensor:
    """Radius [K] of the ball around the origin that contains the solid Gaussians of [K,N,14]; 1 if there are none."""
    if not bool(solid.any()):
        return gaussians.new_ones(len(gaussians))
    distances = torch.linalg.vector_norm(gaussians[:, solid, CHANNELS["position"]], dim=-1).sort(dim=1).values
    radius: Tensor = distances[:, distances.shape[1] - 1 - int(OUTERMOST * distances.shape[1])]
    return radius.clamp(min=1e-6)


@dataclass(frozen=True)
class VariantImages:
    """Renders the encoder inputs and condition images of variants."""

    options: Variants
    config: Experiment
    """That of stage 1."""
    poses: Array
    """[7,4,4] of the condition and the inputs in the y-up world; each variant has its own condition elevation."""
    side: int
    """Side of the images of ingest, pixels."""
    form: ConditionForm
    inputs: Inputs

    @torch.no_grad()
    def __call__(self, name: str, splats: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder inputs [K,...] and condition images [K,3,C,C] of an object's variants, on the device of the splats.

        splats: splatter images [6,14,S,S] of the object.
        """
        camera = self.config.camera
        frame = view_frame(self.poses, camera.radius)
        group = symmetries(frame @ self.poses[list(INPUT_VIEWS)])
        sides = group if self.options.symmetries else group[:1]
        variants = changes(self.options, self.config, name, len(sides))
        x, _, z = self.poses[CONDITION_VIEW, :3, 3]
        azimuth = math.degrees(math.atan2(x, z))
        poses = np.repeat(self.poses[None], len(variants), axis=0)
        elevations = [variant.condition_elevation_deg for variant in variants]
        poses[:, CONDITION_VIEW] = [orbit_c2w(elevation, azimuth, camera.radius) for elevation in elevations]
        gaussians = changed(to_gaussians(splats[None].float()), variants, frame[:3, :3], sides)
        cameras = Cameras(torch.from_numpy(frame @ poses).to(gaussians), camera.fov_y_deg, self.side, self.side)
        output = self.config.render.render(gaussians, cameras)
        rgb, alpha = output.rgb.clamp(0, 1), output.alpha.clamp(0, 1)
        n = len(FIXED_VIEWS)
        views = slice(INPUT_VIEWS[0], n)
        seen = unfitted(splats.float(), variants, sides) if self.config.representation.encodes_splats else None
        inputs = self.inputs(rgb[:, views], alpha[:, views], seen)
        conditions = [condition_image(rgb[k, :1], alpha[k, :1], *self.form) for k in range(len(variants))]
        return inputs, torch.stack(conditions)
