"""DPM-Solver++ of second order (Lu et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.networks.process import ZERO123PLUS, Process
from z1g.sampling.samplers.base import Sampler

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin


class DpmMultistep(Sampler):
    """DPM-Solver++ of second order (Lu et al. 2022): deterministic, for 10 to 25 steps."""

    kind: Literal["dpm_multistep"] = "dpm_multistep"
    order: int = Field(2, ge=1, le=3, description="order of the solver: predictions combined per step")

    def scheduler(self, clip_sample: bool = False, process: Process = ZERO123PLUS) -> SchedulerMixin:
        from diffusers import DPMSolverMultistepScheduler

        return DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=self.order, **process.settings())
