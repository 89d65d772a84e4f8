"""Uniform timesteps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.networks.timesteps.base import Timesteps

if TYPE_CHECKING:
    import torch


class Uniform(Timesteps):
    """All timesteps with equal probability, as in the original."""

    kind: Literal["uniform"] = "uniform"
    below: int = Field(
        1000,
        ge=1,
        le=1000,
        description="timesteps are drawn below this; the original: 999, which never trains the last one, where "
        "sampling starts",
    )

    def share(self, uniform: torch.Tensor) -> torch.Tensor:
        return uniform

    def draw(self, uniform: torch.Tensor, count: int) -> torch.Tensor:
        return super().draw(uniform, min(self.below, count))
