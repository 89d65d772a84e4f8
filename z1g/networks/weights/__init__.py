"""Slot family of the networks: VAE and conditioned diffusion UNet."""

from z1g.networks.weights.base import Model
from z1g.networks.weights.scratch import Scratch
from z1g.networks.weights.sd_image_variations import SdImageVariations
from z1g.networks.weights.trained import Trained
from z1g.networks.weights.zero123plus import Zero123Plus

KINDS: tuple[type[Model], ...] = (
    Scratch,
    SdImageVariations,
    Trained,
    Zero123Plus,
)
"""All kinds of Model."""

__all__ = ["KINDS", "Model", "Scratch", "SdImageVariations", "Trained", "Zero123Plus"]
