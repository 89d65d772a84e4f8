"""Deterministic DDIM (Song et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from z1g.networks.process import ZERO123PLUS, Process
from z1g.sampling.samplers.base import Sampler

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin


class Ddim(Sampler):
    """Deterministic DDIM (Song et al. 2021)."""

    kind: Literal["ddim"] = "ddim"

    def scheduler(self, clip_sample: bool = False, process: Process = ZERO123PLUS) -> SchedulerMixin:
        from diffusers import DDIMScheduler

        return DDIMScheduler(clip_sample=False, set_alpha_to_one=True, **process.settings())
