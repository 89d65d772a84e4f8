"""Deterministic steps of sampling, and what one step would have to predict to do the work of several.

DDIM without noise (Song et al. 2021, eq. 12) follows the probability-flow ODE from noise to a code. Shortcuts are those
of progressive distillation (Salimans & Ho 2022, algorithm 2).
"""

from __future__ import annotations

from torch import Tensor

from z1g.networks.diffusion import TIMESTEPS, NoiseSchedule

CLEAN = -1
"""In place of a timestep: the end, where nothing of the noise is left."""


def times(steps: int) -> list[int]:
    """Timesteps from which sampling in `steps` steps starts its steps, the noisiest first, and `CLEAN`.

    They are those of diffusers' spacing `trailing`. The times of n steps are among those of every multiple of n.
    """
    return [round(TIMESTEPS * (steps - i) / steps) - 1 for i in range(steps + 1)]


def step(schedule: NoiseSchedule, noisy: Tensor, velocity: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Codes [B,*code_shape] at times `end` [B] from noisy ones and their v at timesteps `start` [B]."""
    alpha, sigma = _at(schedule, end, noisy)
    code = schedule.x0_from_v(noisy, velocity, start)
    return alpha * code + sigma * schedule.noise_from_v(noisy, velocity, start)


def shortcut(schedule: NoiseSchedule, noisy: Tensor, arrived: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """x0 [B,*code_shape] whose prediction leads from `noisy` at timesteps `start` [B] to `arrived` at `end` in a step.

    It is the solution of arrived = a'·x0 + s'·(noisy - a·x0)/s for x0.
    """
    alpha, sigma = schedule.at(start, noisy)
    later_alpha, later_sigma = _at(schedule, end, noisy)
    kept = later_sigma / sigma
    return (arrived - kept * noisy) / (later_alpha - kept * alpha)


def _at(schedule: NoiseSchedule, time: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """`NoiseSchedule.at` for times that may be `CLEAN`."""
    alpha, sigma = schedule.at(time.clamp(min=0), like)
    clean = (time == CLEAN).to(like.device).view(alpha.shape)
    # Not `torch.where`, which copies numbers from the host and so cannot be captured in a CUDA graph.
    return alpha.masked_fill(clean, 1.0), sigma.masked_fill(clean, 0.0)
