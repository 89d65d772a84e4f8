"""Scale activations, from raw channels of the decoder to the standard deviations of a Gaussian."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from z1g.core.slots import Slot

if TYPE_CHECKING:
    import torch


class ScaleActivation(Slot):
    """Maps raw values to scales in normalized units, clamped to [e^log_min, e^log_max]."""

    log_min: float = Field(-10.0, ge=-50, le=50, description="smallest log-scale")
    log_max: float = Field(-2.0, ge=-50, le=50, description="largest log-scale")

    @model_validator(mode="after")
    def _ordered(self) -> ScaleActivation:
        if self.log_min >= self.log_max:
            raise ValueError(f"log_min {self.log_min} must be below log_max {self.log_max}")
        return self

    @property
    def initial_bias(self) -> float:
        """Initial value of the bias added to the raw value."""
        return 0.0

    @property
    def learnable(self) -> bool:
        """Whether the bias is trained."""
        return False

    @abstractmethod
    def apply(self, raw: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Scales of the same shape as `raw`."""

    @abstractmethod
    def inverse(self, scale: float) -> float:
        """The sum of raw value and bias that gives a scale, after clamping it to the range."""

    def _clamped(self, scale: float) -> float:
        return min(max(scale, math.exp(self.log_min)), math.exp(self.log_max))
