"""Ancestral sampling of DDPM (Ho et al. 2020), what the original's inference ran."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.networks.process import TRAINED_WITH
from z1g.sampling.samplers.base import Sampler

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin


class Ddpm(Sampler):
    """Ancestral sampling of DDPM (Ho et al. 2020), what the original's inference ran."""

    kind: Literal["ddpm"] = "ddpm"
    clip_sample: bool = Field(
        False, description="clip predicted codes to ±1, which the original did without wanting to"
    )

    def scheduler(self) -> SchedulerMixin:
        from diffusers import DDPMScheduler

        return DDPMScheduler(clip_sample=self.clip_sample, **TRAINED_WITH)
