"""The VAE of the joint representation: the stock one with first and last layers for 14 channels."""

from __future__ import annotations

import math
from typing import Literal

import torch
from diffusers import AutoencoderKL

from z1g.gaussians.channels import CHANNELS, N_CHANNELS, N_GEOMETRY
from z1g.networks.autoencoder import RGB, widened
from z1g.representations.splat_features import SMALLEST

SOURCES = (*(i % RGB for i in range(N_GEOMETRY)), *range(RGB))
"""For each channel of a splat, the color channel whose weights it starts with; those of the color are last."""
START_PIXELS = 0.5
"""Standard deviation of a Gaussian, in pixel widths at the camera distance, where the last layer gives zero."""
START_OPACITY = -3.2
"""Raw opacity there, 0.04. Higher values slow down training, as in the mosaic."""


def joint_vae(vae: AutoencoderKL, head: Literal["repeated", "zero"]) -> AutoencoderKL:
    """A VAE for splatter images with the weights of one for color images. head: see `Joint`.

    What it does with the color is what the other one does, where all geometry is zero.
    """
    joint = widened(vae, SOURCES)
    with torch.no_grad():
        last = joint.decoder.conv_out
        if head == "zero":
            last.weight[:N_GEOMETRY] = 0
            last.bias[:N_GEOMETRY] = 0
        last.bias += start()
    return joint


def start() -> torch.Tensor:
    """Raw channels [14] of flat Gaussians on their pixels' rays at the camera distance, with the axes of the frame."""
    raw = torch.zeros(N_CHANNELS)
    raw[CHANNELS["opacity"]] = START_OPACITY
    raw[CHANNELS["scale"]] = math.log(START_PIXELS) / -math.log(SMALLEST)
    raw[CHANNELS["rotation"].start] = 1.0
    return raw
