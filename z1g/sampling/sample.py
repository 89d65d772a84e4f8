"""Samples codes from a trained UNet with schedulers of diffusers and classifier-free guidance."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from z1g.core.seeding import torch_generator
from z1g.networks.denoiser import Condition
from z1g.networks.diffusion import TIMESTEPS
from z1g.networks.regression import regress
from z1g.sampling.cascade import Given
from z1g.sampling.predicts_v import PredictsV

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    from z1g.sampling.samplers import Sampler

OnStep = Callable[[int, int], None]
"""Called after each step of sampling with the number of steps done and of all; what it raises ends the sampling."""
CONDITION_NOISE = 1
"""Key that separates the generator of the condition's noise from that of the code's."""


class SamplingOptions(Protocol):
    """Options of sampling, see `z1g.sampling.options`."""

    @property
    def sampler(self) -> Sampler:
        """The sampler, which creates the scheduler."""

    @property
    def steps(self) -> int:
        """Sampling steps."""

    @property
    def guidance(self) -> float:
        """Scale of classifier-free guidance; 1 disables it."""

    @property
    def seed(self) -> int:
        """Random seed, combined with the seed of each object."""


@torch.no_grad()
def sample_codes(
    denoiser: PredictsV,
    condition: Condition,
    zero_latent: Tensor,
    shape: tuple[int, ...],
    options: SamplingOptions,
    seeds: Sequence[int],
    scheduler: SchedulerMixin | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample codes [B,*shape] for B conditions. `seeds` has one seed per object; results do not depend on the batch.
    `scheduler`: a new scheduler that replaces the options' sampler.

    Guidance: v = v_0 + g·(v_c - v_0) (Ho & Salimans 2022, eq. 6, in terms of v); g = 1 skips the unconditional half.
    Both halves run in one forward pass; as published, their condition latents get independent noise.

    A denoiser that was trained by regression is asked once. Options and seeds then have no effect. One with a cascade
    takes all steps twice.
    """
    if denoiser.objective == "regression":
        codes = regress(denoiser, denoiser.schedule, condition, shape)
        if on_step is not None:
            on_step(1, 1)
        return codes
    scheduler = scheduler or options.sampler.scheduler(denoiser.clip_sample, denoiser.schedule.process)
    if denoiser.parts is None or not denoiser.parts.cascade:
        return _sampled(denoiser, condition, zero_latent, shape, options, seeds, scheduler, on_step)
    device = condition.latent.device
    first = denoiser.parts.first(shape[0], device)
    noise = object_noise(options, seeds, shape).to(device)
    for half, (active, timestep) in enumerate(((first, TIMESTEPS - 1), (~first, 0))):
        own = type(scheduler).from_config(scheduler.config)
        given = Given(denoiser, active, noise, timestep)
        sampled = _sampled(given, condition, zero_latent, shape, options, seeds, own, _half(on_step, half))
        noise = torch.where(given.active, sampled, noise)
    return noise


def _half(on_step: OnStep | None, half: int) -> OnStep | None:
    """Steps of the first (0) or second (1) of two samplings, counted among those of both."""
    return None if on_step is None else lambda done, of: on_step(half * of + done, 2 * of)


def _sampled(
    denoiser: PredictsV, condition: Condition, zero_latent: Tensor, shape: tuple[int, ...], options: SamplingOptions,
    seeds: Sequence[int], scheduler: SchedulerMixin, on_step: OnStep | None,
) -> Tensor:  # fmt: skip
    """`sample_codes` of all entries together."""
    device, batch = condition.latent.device, len(seeds)
    # Noise is drawn on the CPU, so that a seed gives the same code on every device.
    generators = [torch_generator(options.seed, seed) for seed in seeds]
    # Timesteps stay on the CPU, where schedulers look up constants; on the device each step would synchronize.
    scheduler.set_timesteps(options.steps)
    extra = _generator_argument(scheduler, generators)
    halves = 2 if options.guidance > 1 else 1
    nothing = [denoiser.nothing(zero_latent.to(device), batch)] if halves == 2 else []
    conditions = Condition.joined([*nothing, condition])
    noises = _condition_noises(options, seeds, halves, tuple(condition.latent.shape[1:])).to(device)
    latents: Tensor = _normal((batch, *shape), generators).to(device) * scheduler.init_noise_sigma
    steps = scheduler.timesteps.long().to(device)
    for i, timestep in enumerate(scheduler.timesteps):
        noisy = scheduler.scale_model_input(latents, timestep).repeat(halves, *[1] * len(shape))
        velocity = denoiser(noisy, steps[i].expand(halves * batch), conditions, noises[i])
        if halves == 2:
            unconditional, conditional = velocity.chunk(2)
            velocity = unconditional + options.guidance * (conditional - unconditional)
        latents = scheduler.step(velocity, timestep, latents, return_dict=False, **extra)[0]
        if on_step is not None:
            on_step(i + 1, len(steps))
    return latents


@torch.no_grad()
def predict_once(
    denoiser: PredictsV,
    condition: Condition,
    codes: Tensor,
    timestep: int,
    options: SamplingOptions,
    seeds: Sequence[int],
) -> Tensor:
    """Codes [B,*code_shape] predicted in one step from true codes noised to a timestep, without guidance."""
    schedule, device = denoiser.schedule, codes.device
    noise = object_noise(options, seeds, tuple(codes.shape[1:])).to(device)
    noises = _condition_noises(options, seeds, 1, tuple(condition.latent.shape[1:]), n_steps=1).to(device)
    timesteps = torch.full((len(codes),), timestep, device=device)
    noisy = schedule.add_noise(codes, noise, timesteps)
    return schedule.x0_from_v(noisy, denoiser(noisy, timesteps, condition, noises[0]), timesteps)


def object_noise(options: SamplingOptions, seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise [B,*shape] on the CPU, the first that sampling draws for each object."""
    return _normal((len(seeds), *shape), [torch_generator(options.seed, seed) for seed in seeds])


def _generator_argument(scheduler: Any, generators: list[torch.Generator]) -> dict[str, Any]:
    """The argument `generator` of `step`, empty for deterministic schedulers, which do not accept it."""
    return {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}


def _condition_noises(
    options: SamplingOptions, seeds: Sequence[int], halves: int, shape: tuple[int, ...], n_steps: int | None = None
) -> Tensor:  # fmt: skip
    """Noise of the condition latents at all steps, [steps,halves·B,*shape]: the unconditional half first."""
    generators = [torch_generator(options.seed, seed, CONDITION_NOISE) for seed in seeds]
    noise = _normal((len(seeds), n_steps or options.steps, halves, *shape), generators)
    return noise.permute(1, 2, 0, *range(3, noise.ndim)).flatten(1, 2)


def _normal(shape: tuple[int, ...], generators: Sequence[torch.Generator]) -> Tensor:
    return torch.stack([torch.randn(shape[1:], generator=generator) for generator in generators])
