"""UniPC, a predictor-corrector solver (Zhao et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.networks.process import TRAINED_WITH
from z1g.sampling.samplers.base import Sampler

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin


class UniPc(Sampler):
    """UniPC, a predictor-corrector solver (Zhao et al. 2023): deterministic, for 10 to 25 steps."""

    kind: Literal["unipc"] = "unipc"
    order: int = Field(2, ge=1, le=3, description="order of the solver: predictions combined per step")

    def scheduler(self, clip_sample: bool = False) -> SchedulerMixin:
        from diffusers import UniPCMultistepScheduler

        return UniPCMultistepScheduler(solver_order=self.order, **TRAINED_WITH)
