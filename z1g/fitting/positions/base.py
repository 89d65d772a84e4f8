"""What the fit's optimizer moves where a Gaussian's position is concerned."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Rays:
    """The ray of each Gaussian's pixel, view-1 frame: origins and directions [B,M,3], the latter of camera-z length 1.

    axes: [B,M,3,3], columns x, y and z of the input's camera.
    """

    origins: torch.Tensor
    directions: torch.Tensor
    axes: torch.Tensor


class Positions(Slot):
    """A parametrization of positions [B,M,3]."""

    @abstractmethod
    def encode(self, position: torch.Tensor, rays: Rays) -> torch.Tensor:
        """Raw parameters [B,M,K] of positions, clamped to what they can say."""

    @abstractmethod
    def decode(self, raw: torch.Tensor, rays: Rays) -> torch.Tensor:
        """Positions [B,M,3] within the unit cube."""
