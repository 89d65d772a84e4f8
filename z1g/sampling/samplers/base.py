"""Samplers as slots: each is one of diffusers' schedulers with the settings the method needs."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin


class Sampler(Slot):
    """How codes are drawn from the trained UNet."""

    @abstractmethod
    def scheduler(self) -> SchedulerMixin:
        """A fresh diffusers scheduler."""
