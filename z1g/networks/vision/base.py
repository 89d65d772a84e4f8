"""Slot family of the networks that encode condition images."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from pydantic import Field

from z1g.core.slots import Section, Slot

if TYPE_CHECKING:
    from torch import nn


class VisionSize(Section):
    """CLIP vision encoder; with random weights it is trained with the UNet."""

    image_size: int = Field(224, ge=16, le=4096, description="side of the input image in pixels")
    patch_size: int = Field(14, ge=2, le=1024, description="side of a patch in pixels")
    width: int = Field(1280, ge=8, le=65_536, description="width of a token")
    layers: int = Field(32, ge=1, le=1024, description="transformer layers")
    heads: int = Field(16, ge=1, le=1024, description="attention heads")


class Vision(Slot):
    """Network that encodes condition images."""

    kind: Any

    @abstractmethod
    def network(self, size: VisionSize, width: int) -> nn.Module:
        """The network before stage 2. width: channels of its embedding. Raises UserError if weights are missing."""
