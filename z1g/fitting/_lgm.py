"""Prediction of splatter images by LGM."""

from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as functional
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from z1g.core.device import default_device
from z1g.core.errors import UserError
from z1g.core.weights import load_exactly
from z1g.data.scenes import Scene
from z1g.fitting._raw import activate
from z1g.gaussians.channels import join, split
from z1g.geometry.camera import INPUT_VIEWS, pixel_rays
from z1g.networks.lgm import LGM, Layout, features

IMAGE_SIZE = 256
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Statistics of ImageNet's colors, by which LGM's inputs are normalized."""
UNUSED = "lpips_loss."
"""Prefix of the weights of the training loss, which some checkpoints have too."""


@torch.no_grad()
def predict(scene: Scene, weights: str, size: int, antialias: bool, unit: bool) -> Tensor:
    """Activated splatter images [6,14,S,S] of the six input views. Raises UserError if the weights do not match.

    antialias: resize the views with antialiasing. unit: normalize quaternions.
    """
    device = default_device()
    network = _network(weights, device)
    rgb, alpha = (x.to(device) for x in scene.images(list(INPUT_VIEWS)))
    white = functional.interpolate(rgb + 1 - alpha, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=antialias)
    cameras = scene.cameras(list(INPUT_VIEWS), IMAGE_SIZE).to(device)
    origins, directions = (x[0] for x in pixel_rays(cameras))
    raw = split(network(features(white, origins, directions, MEAN, STD)[None])[0], dim=1)
    parts = activate(raw, over=1)
    if not unit:
        parts["rotation"] = raw["rotation"]
    return resized(join(parts, dim=1), size, unit)


def resized(splats: Tensor, size: int, unit: bool = True) -> Tensor:
    """Resize splatter images [V,14,S',S'] by interpolation; scales grow in inverse proportion to the size.

    unit: normalize quaternions.
    """
    previous_size = splats.shape[-1]
    if previous_size == size:
        return splats
    # A quaternion and its negative are the same rotation, but their mean is zero.
    parts = split(splats, dim=1)
    parts["rotation"] = torch.where(parts["rotation"][:, :1] < 0, -parts["rotation"], parts["rotation"])
    small = functional.interpolate(join(parts, dim=1), (size, size), mode="bilinear", antialias=True)
    parts = split(small, dim=1)
    parts["scale"] = parts["scale"] * previous_size / size
    if unit:
        parts["rotation"] = functional.normalize(parts["rotation"], dim=1)
    return join(parts, dim=1)


@lru_cache(maxsize=1)
def _network(weights: str, device: torch.device) -> LGM:
    path = Path(weights)
    if not path.is_file():
        raise UserError(
            f"fit.start.weights: {path} is not a file; download LGM's model_fp16_fixrot.safetensors there, or use "
            "fit.start: {kind: visual_hull}, which needs no weights"
        )
    try:
        state = {name: value.float() for name, value in load_file(path).items() if not name.startswith(UNUSED)}
        # On the meta device: initializing the weights would take 1.7 GB and several seconds.
        with torch.device("meta"):
            network = LGM(Layout.of(state))
    except (SafetensorError, KeyError, IndexError, ValueError, OSError) as error:
        raise UserError(f"fit.start.weights: {path} is not an LGM checkpoint: {error}") from error
    load_exactly(network, state, f"fit.start.weights: {path} is not LGM's", assign=True)
    return network.eval().requires_grad_(False).to(device)
