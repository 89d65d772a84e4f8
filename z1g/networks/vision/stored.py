"""Image encoders of saved models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from z1g.core.files import read_json
from z1g.networks import lean
from z1g.networks.stored import read_network

CLASS = "_class_name"
"""Key of diffusers' configurations; those of transformers have another one."""


def read_encoder(folder: Path, remedy: str = "") -> Any:
    """The image encoder in a folder. Raises UserError if it is missing or does not fit."""
    if lean.is_lean() and not _is_efficientnet(folder):
        from z1g.networks.vision.clip import ClipVision

        return ClipVision.read(folder, remedy)
    return read_network(encoder_class(folder), folder, remedy)


def encoder_class(folder: Path) -> Any:
    """The class of the image encoder in a folder: CLIP's, unless its configuration names another one."""
    if _is_efficientnet(folder):
        from z1g.networks.vision.efficientnet import EfficientNetEncoder

        return EfficientNetEncoder
    from transformers import CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection


def _is_efficientnet(folder: Path) -> bool:
    try:
        return bool(read_json(folder / "config.json").get(CLASS) == "EfficientNetEncoder")
    except (OSError, ValueError, AttributeError):
        return False
