"""Scale activations with a bias: softplus and exp."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.representations.scale.base import ScaleActivation

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional
else:
    from z1g.core.lazy import functional


class _Biased(ScaleActivation):
    bias: float = Field(-3.0, ge=-100, le=100, description="initial value of the bias")
    learn_bias: bool = Field(True, description="train the bias along with the decoder")

    @property
    def initial_bias(self) -> float:
        return self.bias

    @property
    def learnable(self) -> bool:
        return self.learn_bias


class BiasedSoftplus(_Biased):
    """clamp(0.1·softplus(x + b)), as in the original."""

    kind: Literal["biased_softplus"] = "biased_softplus"

    def apply(self, raw: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return (0.1 * functional.softplus(raw + bias)).clamp(math.exp(self.log_min), math.exp(self.log_max))

    def inverse(self, scale: float) -> float:
        return math.log(math.expm1(10 * self._clamped(scale)))


class BiasedExp(_Biased):
    """clamp(exp(x + b)): equal steps of the raw value are equal factors of the scale."""

    kind: Literal["biased_exp"] = "biased_exp"
    bias: float = Field(-5.0, ge=-100, le=100, description="initial value of the bias")

    def apply(self, raw: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        # Clamping before exp keeps the gradient finite for large raw values.
        return (raw + bias).clamp(self.log_min, self.log_max).exp()

    def inverse(self, scale: float) -> float:
        return math.log(self._clamped(scale))
