"""Slot family of the networks that encode condition images."""

from z1g.networks.vision.base import Vision, VisionSize
from z1g.networks.vision.efficientnet_lite import EfficientNetLite
from z1g.networks.vision.transformer import Transformer

KINDS: tuple[type[Vision], ...] = (
    EfficientNetLite,
    Transformer,
)
"""All kinds of Vision."""

__all__ = ["KINDS", "EfficientNetLite", "Transformer", "Vision", "VisionSize"]
