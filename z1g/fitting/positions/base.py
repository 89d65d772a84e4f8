"""Parametrizations of Gaussian positions for the fit's optimizer."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Rays:
    """Rays of the Gaussians' pixels in the view-1 frame.

    origins: [B,M,3]. directions: [B,M,3], with camera-space z of 1. axes: [B,M,3,3], columns x, y and z of the input
    view's camera.
    """

    origins: torch.Tensor
    directions: torch.Tensor
    axes: torch.Tensor


class Positions(Slot):
    """A parametrization of positions [B,M,3]."""

    @abstractmethod
    def encode(self, position: torch.Tensor, rays: Rays) -> torch.Tensor:
        """Raw parameters [B,M,K] of positions, projected to the nearest ones that the parametrization can represent."""

    @abstractmethod
    def decode(self, raw: torch.Tensor, rays: Rays) -> torch.Tensor:
        """Positions [B,M,3], clamped to -1..1."""
