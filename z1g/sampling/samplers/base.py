"""Samplers as slots: schedulers of diffusers with the settings of the method."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin


class Sampler(Slot):
    """Samples codes from the trained UNet."""

    @abstractmethod
    def scheduler(self, clip_sample: bool = False) -> SchedulerMixin:
        """A new scheduler of diffusers. clip_sample: see `Denoiser.clip_sample`; only DDPM can clip."""
