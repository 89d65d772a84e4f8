"""Timesteps in the middle more often than at the ends (Esser et al. 2024, §3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.networks.timesteps.base import Timesteps

if TYPE_CHECKING:
    import torch
else:
    from z1g.core.lazy import torch


class LogitNormal(Timesteps):
    """The logistic of a normal number (Esser et al. 2024, §3.1): the middle of the process is visited most."""

    kind: Literal["logit_normal"] = "logit_normal"
    mean: float = Field(0.0, description="of the normal number; above 0: more noise")
    deviation: float = Field(1.0, gt=0, description="of the normal number")

    def share(self, uniform: torch.Tensor) -> torch.Tensor:
        # The inverse of the normal distribution has no value at 0.
        normal: torch.Tensor = torch.special.ndtri(uniform.clamp(min=1e-7))
        return (self.mean + self.deviation * normal).sigmoid()
