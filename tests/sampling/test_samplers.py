"""Samplers and guidance: published settings, and codes against a denoiser that returns the exact v."""

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    UniPCMultistepScheduler,
)
from support.diffusion import PUBLISHED, SCHEDULE, SHAPE, code_condition, condition_of, micro_denoiser, normal
from torch import Tensor

from z1g.networks.denoiser import Condition, Parts
from z1g.sampling.options import InferOptions
from z1g.sampling.sample import sample_codes
from z1g.sampling.samplers import Sampler
from z1g.sampling.samplers.ddim import Ddim
from z1g.sampling.samplers.ddpm import Ddpm
from z1g.sampling.samplers.dpm_multistep import DpmMultistep
from z1g.sampling.samplers.euler_ancestral import EulerAncestral
from z1g.sampling.samplers.unipc import UniPc


@pytest.mark.parametrize(
    ("sampler", "cls", "extra"),
    [
        (Ddpm(), DDPMScheduler, {"clip_sample": False}),
        (Ddpm(clip_sample=True), DDPMScheduler, {"clip_sample": True}),
        (Ddim(), DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": True}),
        (EulerAncestral(), EulerAncestralDiscreteScheduler, {}),
        (DpmMultistep(order=3), DPMSolverMultistepScheduler, {"solver_order": 3, "algorithm_type": "dpmsolver++"}),
        (UniPc(order=3), UniPCMultistepScheduler, {"solver_order": 3}),
    ],
)
def test_sampler_settings(sampler: Sampler, cls: type, extra: dict[str, Any]) -> None:
    scheduler = sampler.scheduler()
    assert type(scheduler) is cls
    assert {name: scheduler.config[name] for name in {**PUBLISHED, **extra}} == {**PUBLISHED, **extra}
    scheduler.set_timesteps(75)
    assert len(scheduler.timesteps) == 75
    assert int(scheduler.timesteps[0]) == 999


class Oracle:
    """Replaces a denoiser; knows x0 of each condition and returns its exact v."""

    clip_sample, objective, schedule, parts = False, "diffusion", SCHEDULE, None

    def __init__(self) -> None:
        self.calls: list[int] = []

    def nothing(self, zero_latent: Tensor, batch: int) -> Condition:
        return Condition(zero_latent.expand(batch, -1, -1, -1), torch.zeros(batch, 1))

    def __call__(self, noisy: Tensor, timestep: Tensor, condition: Condition, latent_noise: Tensor) -> Tensor:
        self.calls.append(len(noisy))
        x0 = condition.latent
        noise = (noisy - SCHEDULE.at(timestep, noisy)[0] * x0) / SCHEDULE.at(timestep, noisy)[1]
        return SCHEDULE.velocity(x0, noise, timestep)


ZERO = torch.zeros(1, *SHAPE)


@pytest.mark.parametrize("sampler", [Ddpm(), Ddim(), EulerAncestral(), DpmMultistep(), UniPc()])
@pytest.mark.parametrize("steps", [1, 8, 30])
def test_the_right_v_leads_to_x0(sampler: Sampler, steps: int) -> None:
    condition, options = code_condition(3), InferOptions(sampler=sampler, steps=steps, guidance=1)
    actual = sample_codes(Oracle(), condition, ZERO, SHAPE, options, [1, 2, 3])
    torch.testing.assert_close(actual, condition.latent, atol=2e-3, rtol=0)


class Cascade:
    """Knows x0 of the first part, [4,6,4] of a code [2,4,6,4]; that of the second part is its double and an offset."""

    clip_sample, objective, schedule, parts = False, "diffusion", SCHEDULE, Parts(2, cascade=(0,))
    offset = 0.25

    def __init__(self) -> None:
        self.seen: list[tuple[list[int], Tensor]] = []

    def nothing(self, zero_latent: Tensor, batch: int) -> Condition:
        return Condition(zero_latent.expand(batch, -1, -1, -1), torch.zeros(batch, 1))

    def __call__(self, noisy: Tensor, timestep: Tensor, condition: Condition, latent_noise: Tensor) -> Tensor:
        self.seen.append((timestep[-1].tolist(), noisy[-1]))
        x0 = torch.stack([condition.latent, 2 * noisy[:, 0] + self.offset], dim=1)
        noise = (noisy - SCHEDULE.at(timestep, noisy)[0] * x0) / SCHEDULE.at(timestep, noisy)[1]
        return SCHEDULE.velocity(x0, noise, timestep)


@pytest.mark.parametrize("sampler", [Ddpm(), Ddim(), EulerAncestral(), DpmMultistep(), UniPc()])
@pytest.mark.parametrize("guidance", [1, 2])
def test_a_cascade_gives_its_first_part_to_the_second(sampler: Sampler, guidance: float) -> None:
    condition, oracle = code_condition(2), Cascade()
    zero = condition.latent[:1] if guidance == 1 else torch.zeros(1, *SHAPE)
    options = InferOptions(sampler=sampler, steps=8, guidance=guidance)
    actual = sample_codes(oracle, condition, zero, (2, *SHAPE), options, [1, 2])
    first = guidance * condition.latent
    torch.testing.assert_close(actual[:, 0], first, atol=5e-3, rtol=0)
    torch.testing.assert_close(actual[:, 1], 2 * actual[:, 0] + oracle.offset, atol=2e-2, rtol=0)
    steps = [timesteps for timesteps, _ in oracle.seen]
    assert {later for _, later in steps[: len(steps) // 2]} == {999}
    assert {first for first, _ in steps[len(steps) // 2 :]} == {0}
    noise = oracle.seen[0][1][1]
    assert all(torch.equal(seen[1], noise) for _, seen in oracle.seen[: len(steps) // 2]), "without signal"
    assert all(torch.equal(seen[0], actual[1, 0]) for _, seen in oracle.seen[len(steps) // 2 :])


def test_clipping_is_the_original_s() -> None:
    options = InferOptions(sampler=Ddpm(clip_sample=True), steps=10, guidance=1)
    actual = sample_codes(Oracle(), code_condition(2), ZERO, SHAPE, options, [1, 2])
    torch.testing.assert_close(actual, code_condition(2).latent.clamp(-1, 1), atol=2e-3, rtol=0)


@pytest.mark.parametrize("sampler", [Ddpm(), Ddim(), EulerAncestral(), DpmMultistep(), UniPc()])
@pytest.mark.parametrize("guidance", [pytest.param(1.0, marks=pytest.mark.slow), 3.0])
def test_objects_do_not_depend_on_their_batch(sampler: Sampler, guidance: float) -> None:
    denoiser, options = micro_denoiser(), InferOptions(sampler=sampler, steps=4, guidance=guidance)
    condition, seeds, zero = condition_of(denoiser, 3), [11, 22, 33], torch.zeros(1, 4, 4, 4)
    together = sample_codes(denoiser, condition, zero, SHAPE, options, seeds)
    for i, seed in enumerate(seeds):
        own = Condition(condition.latent[i : i + 1], condition.embedding[i : i + 1])
        alone = sample_codes(denoiser, own, zero, SHAPE, options, [seed])
        torch.testing.assert_close(alone[0], together[i], atol=1e-4, rtol=0)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_seeds_decide_the_code() -> None:
    denoiser = micro_denoiser()
    condition, zero = condition_of(denoiser, 1), torch.zeros(1, 4, 4, 4)

    def code(object_seed: int, seed: int) -> Tensor:
        return sample_codes(denoiser, condition, zero, SHAPE, InferOptions(steps=2, seed=seed), [object_seed])

    torch.testing.assert_close(code(1, 0), code(1, 0), atol=0, rtol=0)
    assert not torch.allclose(code(1, 0), code(2, 0), atol=1e-2)
    assert not torch.allclose(code(1, 0), code(1, 1), atol=1e-2)


def test_guidance_formula() -> None:
    """With v linear in the condition, guidance g multiplies the difference from the unconditional x0 by g."""
    condition, guidance = code_condition(2), 2.5
    zero = normal(1, *SHAPE, seed=9)
    options = InferOptions(sampler=Ddim(), steps=1, guidance=guidance)
    oracle = Oracle()
    actual = sample_codes(oracle, condition, zero, SHAPE, options, [1, 2])
    expected = zero + guidance * (condition.latent - zero)
    torch.testing.assert_close(actual, expected.expand_as(actual), atol=5e-3, rtol=0)
    assert oracle.calls == [4]


def test_guidance_1_is_a_single_pass() -> None:
    oracle = Oracle()
    sample_codes(oracle, code_condition(2), ZERO, SHAPE, InferOptions(steps=3, guidance=1), [1, 2])
    assert oracle.calls == [2, 2, 2]
