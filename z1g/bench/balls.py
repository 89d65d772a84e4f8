"""Made-up objects with depth, for benchmarks of the fit: textured balls, ray traced."""

import math

import torch
from torch import Tensor

from z1g.config.tree import Experiment
from z1g.core.device import default_device
from z1g.data.scenes import Scene
from z1g.geometry.camera import INPUT_VIEWS, Cameras, pixel_rays, view_frame

RADIUS = 0.35
STRIPES = 40.0
"""Radians of the texture's waves per unit of length."""


def ball(config: Experiment, image: int, seed: int) -> Scene:
    """A ball around the origin whose colors are waves over its surface, at the poses of a configuration.

    Images have `image`² pixels; the input views have exact planar depth.
    """
    poses = config.camera.poses(seed)
    c2w = torch.from_numpy(view_frame(poses, config.camera.radius) @ poses).float()
    colors, depths = [], []
    generator = torch.Generator().manual_seed(seed)
    phase = 2 * math.pi * torch.rand(3, 1, 1, generator=generator).to(default_device())
    for pose in c2w:
        cameras = Cameras(pose[None, None], config.camera.fov_y_deg, image, image).to(default_device())
        origins, directions = (x[0, 0] for x in pixel_rays(cameras))
        depth, hit = _nearest(origins, directions)
        rgb = 0.5 + 0.5 * torch.sin(STRIPES * (origins + depth * directions) + phase)
        rgba = torch.cat([rgb * hit, hit.float()])
        colors.append((255 * rgba).round().byte().permute(1, 2, 0).cpu())
        depths.append((depth * hit)[0].cpu())
    inputs = torch.stack([depths[view] for view in INPUT_VIEWS])
    return Scene(f"ball{seed}", c2w, config.camera.fov_y_deg, torch.stack(colors).numpy(), inputs, None)


def _nearest(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Planar depth [1,H,W] of the ball's surface along rays [3,H,W], and whether they hit it."""
    a, b = directions.square().sum(0, keepdim=True), (origins * directions).sum(0, keepdim=True)
    root = b.square() - a * (origins.square().sum(0, keepdim=True) - RADIUS**2)
    return (-b - root.clamp(min=0).sqrt()) / a, root > 0
