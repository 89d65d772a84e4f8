"""Ancestral sampling of DDPM (Ho et al. 2020), as in the original."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.networks.process import TRAINED_WITH
from z1g.sampling.samplers.base import Sampler

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin


class Ddpm(Sampler):
    """Ancestral sampling of DDPM (Ho et al. 2020), as in the original."""

    kind: Literal["ddpm"] = "ddpm"
    clip_sample: bool = Field(False, description="the original's bug: clip predicted codes to ±1")

    def scheduler(self) -> SchedulerMixin:
        from diffusers import DDPMScheduler

        return DDPMScheduler(clip_sample=self.clip_sample, **TRAINED_WITH)
