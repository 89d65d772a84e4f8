"""Deterministic DDIM (Song et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from z1g.networks.process import TRAINED_WITH
from z1g.sampling.samplers.base import Sampler

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin


class Ddim(Sampler):
    """Deterministic DDIM (Song et al. 2021)."""

    kind: Literal["ddim"] = "ddim"

    def scheduler(self, clip_sample: bool = False) -> SchedulerMixin:
        from diffusers import DDIMScheduler

        return DDIMScheduler(clip_sample=False, set_alpha_to_one=True, **TRAINED_WITH)
