"""Ancestral Euler steps (Karras et al. 2022), Zero123++'s published sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from z1g.networks.process import ZERO123PLUS, Process
from z1g.sampling.samplers.base import Sampler

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin


class EulerAncestral(Sampler):
    """Ancestral Euler steps (Karras et al. 2022), Zero123++'s published sampler."""

    kind: Literal["euler_ancestral"] = "euler_ancestral"

    def scheduler(self, clip_sample: bool = False, process: Process = ZERO123PLUS) -> SchedulerMixin:
        from diffusers import EulerAncestralDiscreteScheduler

        return EulerAncestralDiscreteScheduler(**process.settings())
