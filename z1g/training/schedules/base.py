"""Learning-rate schedules as slots."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from z1g.core.slots import Slot

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


class Schedule(Slot):
    """Learning rate as a function of the step."""

    follows_loss: ClassVar[bool] = False
    """Whether the schedule is stepped with the mean training loss of each logging interval, not at every step."""

    @abstractmethod
    def build(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """A PyTorch scheduler for a run of `steps` steps."""
