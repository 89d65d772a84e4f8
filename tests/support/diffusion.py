"""A small denoiser, its conditions, and the published noise schedule."""

import torch
from torch import Tensor

from support.builders import SIZES
from z1g.networks.denoiser import Condition, Denoiser
from z1g.networks.diffusion import NoiseSchedule
from z1g.networks.weights.scratch import Scratch

SHAPE = (4, 6, 4)
"""Shape of one code."""
SCHEDULE = NoiseSchedule()
PUBLISHED = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}
"""Settings of Zero123++'s scheduler."""


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers with a fixed seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def micro_denoiser(seed: int = 0) -> Denoiser:
    """A denoiser whose output layer is not zero."""
    denoiser = Scratch(init_seed=seed, **SIZES).denoiser().requires_grad_(False).eval()
    denoiser.unet.conv_out.weight.copy_(0.1 * normal(*denoiser.unet.conv_out.weight.shape))
    return denoiser


def condition_of(denoiser: Denoiser, n: int, seed: int = 5) -> Condition:
    """Random conditions of `n` objects."""
    return denoiser.condition(
        normal(n, 4, 4, 4, seed=seed),
        torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed)),
    )


def code_condition(n: int, seed: int = 0) -> Condition:
    """Conditions whose latent has the shape of a code, and whose embedding is 1."""
    return Condition(normal(n, *SHAPE, seed=seed), torch.ones(n, 1))
