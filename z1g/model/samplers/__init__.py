"""Samplers as slots: each is one of diffusers' schedulers with the settings the method needs."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from z1g.config.slot import Slot

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

TRAINED_WITH: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}
"""The process every sampler inverts (`z1g.networks.diffusion`).

Zero123++ (Shi et al. 2023, §2.2) leaves Stable Diffusion's scaled-linear schedule for the linear one, which spends more
steps at high noise, where the layout of the six views is decided.
"""


class Sampler(Slot):
    """How codes are drawn from the trained UNet."""

    @abstractmethod
    def scheduler(self) -> "SchedulerMixin":
        """A fresh diffusers scheduler."""
