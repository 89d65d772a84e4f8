"""Image encoders of saved models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from z1g.core.files import read_json

CLASS = "_class_name"
"""Key of diffusers' configurations; those of transformers have another one."""


def encoder_class(folder: Path) -> Any:
    """The class of the image encoder that a folder holds: CLIP's, unless its configuration names another one."""
    try:
        name = read_json(folder / "config.json").get(CLASS)
    except (OSError, ValueError, AttributeError):
        name = None
    if name == "EfficientNetEncoder":
        from z1g.networks.vision.efficientnet import EfficientNetEncoder

        return EfficientNetEncoder
    from transformers import CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection
