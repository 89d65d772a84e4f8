"""The form of condition images. Imports no torch, since options use it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Resize = Literal["bilinear", "bicubic"]


class ConditionForm(NamedTuple):
    """Side of condition images in pixels, and how images are resized to it; see the options of `unet`."""

    size: int
    resize: Resize = "bilinear"
