"""What sampling asks of a denoiser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from z1g.networks.denoiser import Condition, Parts
    from z1g.networks.diffusion import NoiseSchedule
    from z1g.networks.process import Objective


class PredictsV(Protocol):
    """A `Denoiser`, or a replacement of it."""

    @property
    def clip_sample(self) -> bool:
        """See `Denoiser`."""

    @property
    def objective(self) -> Objective:
        """See `Denoiser`."""

    @property
    def schedule(self) -> NoiseSchedule:
        """See `Denoiser`."""

    @property
    def parts(self) -> Parts | None:
        """See `Denoiser`."""

    def __call__(self, noisy: Tensor, timestep: Tensor, condition: Condition, condition_noise: Tensor) -> Tensor:
        """See `Denoiser.forward`."""

    def nothing(self, zero_latent: Tensor, batch: int) -> Condition:
        """See `Denoiser.nothing`."""
