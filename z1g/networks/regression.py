"""Codes by regression: the network of diffusion is asked once, and gives the mean of what it considers possible."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from z1g.networks.denoiser import Condition
from z1g.networks.diffusion import TIMESTEPS, NoiseSchedule

PredictV = Callable[[Tensor, Tensor, Condition, Tensor], Tensor]
"""See `Denoiser.forward`."""


def regress(predict_v: PredictV, schedule: NoiseSchedule, condition: Condition, shape: tuple[int, ...]) -> Tensor:
    """Codes [B,*shape] of B conditions in one pass, without randomness.

    The pass is a denoising step at the last timestep, with the mean of the noise (zeros) in place of a sample. The
    condition is as it is: for networks that add noise to its latent, the noise is the multiple of the latent with which
    the sum is the latent again.
    """
    latent = condition.latent
    timestep = torch.full((len(latent),), TIMESTEPS - 1, device=latent.device)
    alpha, sigma = schedule.at(timestep, latent)
    noisy = latent.new_zeros(len(latent), *shape)
    velocity = predict_v(noisy, timestep, condition, latent * ((1 - alpha) / sigma))
    return schedule.x0_from_v(noisy, velocity.float(), timestep)
