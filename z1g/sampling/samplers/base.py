"""Samplers as slots: schedulers of diffusers with the settings of the method."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from z1g.core.slots import Slot
from z1g.networks.process import ZERO123PLUS, Process

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin


class Sampler(Slot):
    """Samples codes from the trained UNet."""

    @abstractmethod
    def scheduler(self, clip_sample: bool = False, process: Process = ZERO123PLUS) -> SchedulerMixin:
        """A new scheduler of diffusers. clip_sample: see `Denoiser.clip_sample`; only DDPM can clip.

        process: that of the denoiser.
        """
