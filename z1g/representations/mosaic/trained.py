"""Load the mosaic's networks of both stages without a diffusers pipeline, whose import takes as long as they do."""

from pathlib import Path

import torch

from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.networks.weights import method_networks
from z1g.representations.base import Representation
from z1g.representations.codec import Trained
from z1g.representations.folder import REMEDY


def load(
    folder: Path, representation: Representation, camera: CameraOptions, splats: SplatOptions, device: torch.device
) -> Trained:
    """The networks that `Zero1ToGPipeline.save_pretrained` wrote, or the same in int8, frozen, on a device.

    Raises UserError if files are missing or do not fit.
    """
    codec = representation.load_codec(folder, camera, splats).for_inference(device)
    remedy = REMEDY.format(folder=folder)
    parts = method_networks.conditioning(folder, remedy)
    denoiser = method_networks.denoiser(folder, parts, train_conditioning=False, remedy=remedy)
    return Trained(codec, denoiser.to(device).requires_grad_(False).eval(), parts.to(device).statistics())
