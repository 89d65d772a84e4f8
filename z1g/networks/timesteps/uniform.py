"""Uniform timesteps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from z1g.networks.timesteps.base import Timesteps

if TYPE_CHECKING:
    import torch


class Uniform(Timesteps):
    """All timesteps with equal probability, as in the original."""

    kind: Literal["uniform"] = "uniform"

    def share(self, uniform: torch.Tensor) -> torch.Tensor:
        return uniform
