"""Codes from condition pictures: the reverse process with classifier-free guidance."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from z1g.networks.denoiser import Condition, Denoiser
from z1g.seeding import torch_generator

if TYPE_CHECKING:
    from z1g.config.sections import InferOptions


@torch.no_grad()
def sample_codes(
    denoiser: Denoiser,
    condition: Condition,
    zero_latent: Tensor,
    shape: tuple[int, int, int],
    options: "InferOptions",
    seeds: Sequence[int],
) -> Tensor:
    """Codes [B,C,h,w] for B conditions; `seeds` has a seed an object, so results do not depend on the batch.

    Guidance: v = v_0 + g·(v_c - v_0) (Ho & Salimans 2022, eq. 6, in terms of v); g = 1 skips the second pass.
    """
    device, batch = condition.latent.device, len(seeds)
    generators = [torch_generator(options.seed, seed) for seed in seeds]
    scheduler = options.sampler.scheduler()
    scheduler.set_timesteps(options.steps, device=device)
    guided = options.guidance > 1
    nothing = denoiser.nothing(zero_latent.to(device), batch)
    both = _stack(nothing, condition) if guided else condition
    latents: Tensor = _normal((batch, *shape), generators, device) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        noisy = scheduler.scale_model_input(latents, timestep)
        latent_noise = _normal(tuple(condition.latent.shape), generators, device)
        steps = timestep.long().expand(len(both.latent))
        repeat = 2 if guided else 1
        velocity = denoiser(noisy.repeat(repeat, 1, 1, 1), steps, both, latent_noise.repeat(repeat, 1, 1, 1))
        if guided:
            without, with_condition = velocity.chunk(2)
            velocity = without + options.guidance * (with_condition - without)
        # Noise is drawn on the CPU, so a seed gives the same code on every device.
        latents = scheduler.step(velocity, timestep, latents, generator=generators, return_dict=False)[0]
    return latents


def _normal(shape: tuple[int, ...], generators: Sequence[torch.Generator], device: torch.device) -> Tensor:
    return torch.stack([torch.randn(shape[1:], generator=generator) for generator in generators]).to(device)


def _stack(first: Condition, second: Condition) -> Condition:
    return Condition(torch.cat([first.latent, second.latent]), torch.cat([first.embedding, second.embedding]))
