"""The original's schedule: reduces the learning rate when the training loss stops improving."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from z1g.core.slots import MAX_COUNT
from z1g.training.schedules.base import Schedule

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


class Plateau(Schedule):
    """ReduceLROnPlateau on the mean loss of each logging interval, the same on every rank."""

    kind: Literal["plateau"] = "plateau"
    follows_loss: ClassVar[bool] = True
    patience: int = Field(
        100, ge=1, le=MAX_COUNT, description="intervals without improvement before the learning rate is reduced"
    )
    factor: float = Field(0.7, gt=0, lt=1, description="factor of each reduction")
    min_lr: float = Field(1e-6, ge=0, le=1000, description="minimum learning rate")

    def build(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        from torch.optim.lr_scheduler import ReduceLROnPlateau

        return ReduceLROnPlateau(optimizer, patience=self.patience, factor=self.factor, min_lr=self.min_lr)
