"""The form of condition images. Imports no torch, since options use it."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

Resize = Literal["bilinear", "bicubic"]
SMALLEST, LARGEST = 16, 8192
"""Limits of the side of condition images, pixels."""


class ConditionForm(NamedTuple):
    """Side of condition images in pixels, and how images are resized to it; see the options of `unet`."""

    size: Annotated[int, Field(ge=SMALLEST, le=LARGEST)]
    resize: Resize = "bilinear"
