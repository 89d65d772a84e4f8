"""Splatter images as channels for an encoder, relative to the rays of their pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from z1g.gaussians.channels import join, split
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, Cameras, pixel_rays, view_frame
from z1g.geometry.mosaic import tile, untile

SMALLEST = 1 / 32
"""Standard deviation of a Gaussian, in pixels, whose logarithm is -1 for the encoder."""


@dataclass(frozen=True)
class SplatRays:
    """Rays of the splats' pixels.

    anchor: [3,3S,2S], the point of each ray at the camera distance. pixel: width of a pixel there, normalized units.
    """

    anchor: Tensor
    pixel: float


def input_cameras(camera: CameraOptions, size: int) -> Cameras:
    """The cameras [1,6] of the six inputs in the view-1 frame, with images of `size` pixels.

    The six inputs have the same poses for every object, so they depend on the configuration only.
    """
    poses = camera.poses(0)
    c2w = (view_frame(poses, camera.radius) @ poses)[list(INPUT_VIEWS)]
    return Cameras(torch.from_numpy(c2w).float()[None], camera.fov_y_deg, size, size)


def splat_rays(camera: CameraOptions, size: int) -> SplatRays:
    """Rays of the splats' pixels, as a mosaic in the view-1 frame."""
    cameras = input_cameras(camera, size)
    origins, directions = pixel_rays(cameras)
    return SplatRays(tile(origins + camera.radius * directions)[0], camera.radius / cameras.focal)


def splat_features(splats: Tensor, rays: SplatRays, size: int) -> Tensor:
    """Activated splatter images [B,6,14,S,S] as channels [B,6,14,size,size] in about -1..1 for an encoder.

    Positions are relative to the anchors of `rays`, scales are logarithms of multiples of its pixel, and quaternions
    have a positive real part, since q and -q are the same rotation. All but the opacity is multiplied by it: what
    cannot be seen has no other effect. Splats are averaged to a smaller size, or repeated to a larger one.
    """
    parts = split(splats.float(), dim=2)
    opacity, rotation = parts["opacity"], parts["rotation"]
    features = {
        "position": parts["position"] - untile(rays.anchor[None]),
        "opacity": torch.ones_like(opacity),
        "scale": (parts["scale"] / rays.pixel).clamp(SMALLEST, 1 / SMALLEST).log() / -math.log(SMALLEST),
        "rotation": torch.where(rotation[:, :, :1] < 0, -rotation, rotation),
        "rgb": 2 * parts["rgb"] - 1,
    }
    images = opacity * join(features, dim=2)
    if images.shape[-1] != size:
        flat = functional.interpolate(images.flatten(0, 1), (size, size), mode="area")
        images = flat.unflatten(0, images.shape[:2])
    return images
