"""Ancestral sampling of DDPM (Ho et al. 2020), as in the original."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.networks.process import ZERO123PLUS, Process
from z1g.sampling.samplers.base import Sampler

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin


class Ddpm(Sampler):
    """Ancestral sampling of DDPM (Ho et al. 2020), as in the original."""

    kind: Literal["ddpm"] = "ddpm"
    clip_sample: bool | Literal["checkpoint"] = Field(
        False,
        description="clip predicted codes to ±1; checkpoint: as the scheduler of the published weights says (Zero123++ "
        "v1.2: false; without the key: true), false for random weights",
    )

    def scheduler(self, clip_sample: bool = False, process: Process = ZERO123PLUS) -> SchedulerMixin:
        from diffusers import DDPMScheduler

        clips = clip_sample if self.clip_sample == "checkpoint" else self.clip_sample
        return DDPMScheduler(clip_sample=clips, **process.settings())
