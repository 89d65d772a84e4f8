"""Slot family of the distributions of training timesteps."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    import torch


class Timesteps(Slot):
    """A distribution over the timesteps of the noise schedule."""

    @abstractmethod
    def share(self, uniform: torch.Tensor) -> torch.Tensor:
        """Timesteps [B] from 0 (clean) to 1 (noise) of uniform numbers [B] in [0,1)."""

    def draw(self, uniform: torch.Tensor, count: int) -> torch.Tensor:
        """Integer timesteps [B] below `count`."""
        return (self.share(uniform) * count).long().clamp(0, count - 1)
