"""Cosine decay with restarts, one of the original's schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.core.slots import MAX_COUNT
from z1g.training.schedules.base import Schedule

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


class CosineRestarts(Schedule):
    """CosineAnnealingWarmRestarts: repeated cosine decay from the learning rate to `min_lr`."""

    kind: Literal["cosine_restarts"] = "cosine_restarts"
    period: int = Field(3000, ge=1, le=MAX_COUNT, description="steps of the first period")
    growth: int = Field(1, ge=1, le=1000, description="factor between the lengths of consecutive periods")
    min_lr: float = Field(1e-6, ge=0, le=1000, description="learning rate at the end of a period")

    def build(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

        return CosineAnnealingWarmRestarts(optimizer, self.period, self.growth, self.min_lr)
