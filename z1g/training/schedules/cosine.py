"""Constant and cosine schedules, both with a linear warm-up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.core.slots import MAX_COUNT
from z1g.training.schedules.base import Schedule

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


class Constant(Schedule):
    """A constant learning rate after a warm-up."""

    kind: Literal["constant"] = "constant"
    warmup_steps: int = Field(0, ge=0, le=MAX_COUNT, description="steps of linear warm-up")

    def build(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        from torch.optim.lr_scheduler import LambdaLR

        return LambdaLR(optimizer, lambda step: warmup(step, self.warmup_steps))


class Cosine(Schedule):
    """Cosine decay to a fraction of the learning rate, after a warm-up."""

    kind: Literal["cosine"] = "cosine"
    warmup_steps: int = Field(0, ge=0, le=MAX_COUNT, description="steps of linear warm-up")
    final_share: float = Field(
        0.05, ge=0, le=1, description="learning rate of the last step, as a fraction of the maximum"
    )

    def build(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        from torch.optim.lr_scheduler import LambdaLR

        def factor(step: int) -> float:
            done = min(max(step - self.warmup_steps, 0) / max(steps - self.warmup_steps, 1), 1.0)
            cosine = 0.5 * (1 + math.cos(math.pi * done))
            return warmup(step, self.warmup_steps) * (self.final_share + (1 - self.final_share) * cosine)

        return LambdaLR(optimizer, factor)


def warmup(step: int, warmup_steps: int) -> float:
    """Factor of the learning rate that rises linearly to 1 in the first steps."""
    return min((step + 1) / (warmup_steps + 1), 1.0)
