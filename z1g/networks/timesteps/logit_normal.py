"""Logit-normal timesteps (Esser et al. 2024, §3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.networks.timesteps.base import Timesteps

if TYPE_CHECKING:
    import torch
else:
    from z1g.core.lazy import torch


class LogitNormal(Timesteps):
    """Logistic function of a normal variable (Esser et al. 2024, §3.1): middle timesteps are most frequent."""

    kind: Literal["logit_normal"] = "logit_normal"
    mean: float = Field(0.0, ge=-100, le=100, description="mean of the normal variable; above 0: more noise")
    deviation: float = Field(1.0, gt=0, le=100, description="standard deviation of the normal variable")

    def share(self, uniform: torch.Tensor) -> torch.Tensor:
        # The quantile function of the normal distribution is infinite at 0.
        normal: torch.Tensor = torch.special.ndtri(uniform.clamp(min=1e-7))
        return (self.mean + self.deviation * normal).sigmoid()
