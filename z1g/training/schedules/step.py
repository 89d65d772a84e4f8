"""A learning rate that changes once, for training in two phases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.core.slots import MAX_COUNT
from z1g.training.schedules.base import Schedule
from z1g.training.schedules.cosine import warmup

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


class Step(Schedule):
    """Constant learning rate, multiplied by a factor from one step on, after a warm-up."""

    kind: Literal["step"] = "step"
    warmup_steps: int = Field(0, ge=0, le=MAX_COUNT, description="steps of linear warm-up")
    at: float = Field(0.6, ge=0, le=1, description="where the second learning rate begins, as a fraction of the steps")
    factor: float = Field(0.5, gt=0, le=1000, description="second learning rate, as a multiple of the first")

    def build(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        from torch.optim.lr_scheduler import LambdaLR

        first = round(self.at * steps)

        def rate(step: int) -> float:
            return warmup(step, self.warmup_steps) * (self.factor if step >= first else 1.0)

        return LambdaLR(optimizer, rate)
