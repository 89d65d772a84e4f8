"""Codes of which some parts are generated first, and the others given them, with one network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from z1g.networks.denoiser import Condition

if TYPE_CHECKING:
    from z1g.sampling.predicts_v import PredictsV


class Given:
    """A denoiser of which some entries of the code are given, at a fixed timestep."""

    def __init__(self, denoiser: PredictsV, active: Tensor, given: Tensor, timestep: int) -> None:
        """active: entries [K] of codes [B,K,...] that are sampled; the others are those of `given` [B,K,...]."""
        self.denoiser, self.given, self.timestep = denoiser, given, timestep
        self.clip_sample, self.objective, self.schedule = denoiser.clip_sample, denoiser.objective, denoiser.schedule
        self.parts = denoiser.parts
        self.active, self.row = active.view(-1, *[1] * (given.ndim - 2)), active

    def __call__(self, noisy: Tensor, timestep: Tensor, condition: Condition, condition_noise: Tensor) -> Tensor:
        """See `Denoiser.forward`; v of given entries is 0. noisy: [n·B,K,...], as both halves of guidance."""
        given = self.given.repeat(len(noisy) // len(self.given), *[1] * (noisy.ndim - 1))
        steps = torch.where(self.row, timestep[:, None], self.timestep)
        velocity = self.denoiser(torch.where(self.active, noisy, given), steps, condition, condition_noise)
        return torch.where(self.active, velocity, 0)

    def nothing(self, zero_latent: Tensor, batch: int) -> Condition:
        """See `Denoiser.nothing`."""
        return self.denoiser.nothing(zero_latent, batch)
