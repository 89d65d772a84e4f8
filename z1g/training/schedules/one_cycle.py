"""The one-cycle policy, one of the original's schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.core.slots import MAX_COUNT
from z1g.training.schedules.base import Schedule

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


class OneCycle(Schedule):
    """OneCycleLR (Smith & Topin 2017): cosine warm-up to the learning rate, then cosine decay to almost 0.

    The optimizer's betas are unchanged. A warm-up longer than the run is shortened to the run.
    """

    kind: Literal["one_cycle"] = "one_cycle"
    warmup_steps: int = Field(3000, ge=1, le=MAX_COUNT, description="steps until the maximum learning rate")
    first_share: float = Field(0.04, gt=0, le=1, description="first learning rate, as a fraction of the maximum")
    final_share: float = Field(4e-6, gt=0, le=1, description="last learning rate, as a fraction of the maximum")

    def build(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        from torch.optim.lr_scheduler import OneCycleLR

        total = max(steps, 2) + 1
        return OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            # The schedule is stepped once more after the last step.
            total_steps=total,
            # PyTorch counts the warm-up from the step before the first.
            pct_start=(min(self.warmup_steps, total - 2) + 1) / total,
            div_factor=1 / self.first_share,
            final_div_factor=self.first_share / self.final_share,
            cycle_momentum=False,
        )
