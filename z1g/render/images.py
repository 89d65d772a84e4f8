"""Images to look at: PNG files, mosaics of six views, turntable cameras."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from z1g.gaussians.channels import split
from z1g.geometry.camera import Cameras, turntable
from z1g.geometry.mosaic import tile
from z1g.render.base import Rasterizer

POSITION_RANGE = 0.7
LOG_SCALE_RANGE = (-10.0, -2.0)


def on_white(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Premultiplied color [...,3,H,W] and alpha [...,1,H,W] on white."""
    return rgb + 1 - alpha


def to_bytes(image: Tensor) -> NDArray[np.uint8]:
    """[3,H,W] in 0..1 as [H,W,3] bytes."""
    array: NDArray[np.uint8] = (image.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return array


def attributes(splats: Tensor) -> dict[str, Tensor]:
    """Splatter images [6,14,S,S] as a mosaic [3,3S,2S] in 0..1 for each attribute.

    RGB encodes positions within ±0.7, logarithms of scales in -10..-2, or the vector part of quaternions with a
    positive real part; opacity is gray.
    """
    parts = {name: tile(part[None])[0].float() for name, part in split(splats, dim=1).items()}
    low, high = LOG_SCALE_RANGE
    rotation = parts["rotation"]
    mosaics = {
        "position": 0.5 + 0.5 * parts["position"] / POSITION_RANGE,
        "opacity": parts["opacity"].expand(3, -1, -1),
        "scale": (parts["scale"].clamp(min=1e-8).log() - low) / (high - low),
        "rotation": 0.5 + 0.5 * rotation[1:] * torch.where(rotation[:1] < 0, -1.0, 1.0),
        "rgb": parts["rgb"],
    }
    return {name: mosaic.clamp(0, 1) for name, mosaic in mosaics.items()}


def save_png(image: NDArray[Any], path: Path) -> None:
    """Write [H,W,3] bytes as PNG, whatever the extension of `path`."""
    # Pillow's `optimize` takes five times as long for files that are 3 % smaller.
    Image.fromarray(image).save(path, "PNG")


@torch.no_grad()
def mosaic_image(rasterizer: Rasterizer, gaussians: Tensor, cameras: Cameras) -> NDArray[np.uint8]:
    """Mosaic of six renders of one object [1,N,14] on white, [3H,2W,3] bytes."""
    return to_bytes(tile(rasterizer.render(gaussians, cameras).over(1.0))[0])


def turntable_cameras(to_view_frame: NDArray[np.float64], like: Cameras, frames: int, elevation_deg: float) -> Cameras:
    """Cameras [1,frames] on a circle at the distance of `like`; `to_view_frame` [4,4] maps world to splats."""
    radius = float(like.c2w[0, 0, :3, 3].norm())
    poses = torch.from_numpy(to_view_frame @ turntable(frames, elevation_deg, radius)).float()
    return Cameras(poses[None].to(like.c2w.device), like.fov_y_deg, like.height, like.width)
