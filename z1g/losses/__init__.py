"""Slot family of training losses. Configurations map names to losses, so that overlays merge."""

from z1g.losses.base import Comparison, InputMaps, Loss, weighted_sum
from z1g.losses.latent import LatentLoss
from z1g.losses.lpips import LpipsLoss, StLpipsLoss
from z1g.losses.rendering import AlphaLoss, RgbLoss
from z1g.losses.splat import SplatLoss
from z1g.losses.splatter import BackgroundLoss, RayLoss, SmoothLoss

KINDS: tuple[type[Loss], ...] = (
    LatentLoss,
    StLpipsLoss,
    LpipsLoss,
    RgbLoss,
    AlphaLoss,
    SplatLoss,
    SmoothLoss,
    RayLoss,
    BackgroundLoss,
)
"""All kinds of Loss."""

__all__ = [
    "KINDS",
    "AlphaLoss",
    "BackgroundLoss",
    "Comparison",
    "InputMaps",
    "LatentLoss",
    "Loss",
    "LpipsLoss",
    "RayLoss",
    "RgbLoss",
    "SmoothLoss",
    "SplatLoss",
    "StLpipsLoss",
    "weighted_sum",
]
