"""Softplus without bias, as in the fit of the ground truth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from z1g.representations.scale.base import ScaleActivation

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional
else:
    from z1g.core.lazy import functional


class Softplus(ScaleActivation):
    """clamp(0.1·softplus(x))."""

    kind: Literal["softplus"] = "softplus"

    def apply(self, raw: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return (0.1 * functional.softplus(raw + bias)).clamp(math.exp(self.log_min), math.exp(self.log_max))

    def inverse(self, scale: float) -> float:
        return math.log(math.expm1(10 * self._clamped(scale)))
