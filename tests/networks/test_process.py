"""Noise processes: the schedule of training is that of the samplers, whatever the process."""

import math
from typing import get_args

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from support.diffusion import normal

from z1g.networks.denoiser import Parts
from z1g.networks.diffusion import NoiseSchedule
from z1g.networks.process import Betas, Process
from z1g.sampling.samplers import KINDS

SHAPE = (6, 2, 3, 3)
PROCESSES = [Process(betas, zero) for betas in get_args(Betas) for zero in (False, True)]


@pytest.mark.parametrize("process", PROCESSES)
def test_training_and_sampling_have_the_same_noise(process: Process) -> None:
    theirs = DDPMScheduler(**process.settings()).alphas_cumprod.double()
    torch.testing.assert_close(NoiseSchedule(process).alpha ** 2, theirs, rtol=2e-4, atol=1e-7)
    for kind in KINDS:
        scheduler = kind().scheduler(process=process)
        torch.testing.assert_close(scheduler.alphas_cumprod.double(), theirs, rtol=2e-4, atol=1e-7)


def test_square_roots_of_scaled_betas_are_spaced_linearly() -> None:
    schedule, product = NoiseSchedule(Process("scaled_linear")), 1.0
    for i in range(1000):
        product *= 1 - (math.sqrt(0.00085) + i / 999 * (math.sqrt(0.012) - math.sqrt(0.00085))) ** 2
    assert schedule.alpha[-1].item() == pytest.approx(math.sqrt(product), rel=1e-10)


@pytest.mark.parametrize("betas", get_args(Betas))
def test_no_signal_is_left_where_it_is_asked_for(betas: Betas) -> None:
    usual, zero = NoiseSchedule(Process(betas)), NoiseSchedule(Process(betas, zero_terminal_snr=True))
    assert zero.alpha[-1] == 0
    assert zero.sigma[-1] == 1
    assert zero.alpha[0] == pytest.approx(usual.alpha[0].item(), rel=1e-12)
    assert usual.alpha[-1] > 0.03


@pytest.mark.parametrize("process", PROCESSES)
def test_v_and_noise_are_each_other_s_inverse(process: Process) -> None:
    schedule = NoiseSchedule(process)
    t = torch.tensor([0, 1, 500, 998])
    x0, noise = (normal(4, *SHAPE, seed=seed, dtype=torch.float64) for seed in (1, 2))
    noisy = schedule.add_noise(x0, noise, t)
    v = schedule.v_from_noise(noisy, noise, t)
    torch.testing.assert_close(v, schedule.velocity(x0, noise, t), atol=1e-9, rtol=0)
    torch.testing.assert_close(schedule.noise_from_v(noisy, v, t), noise, atol=1e-9, rtol=0)


def test_entries_of_a_code_have_their_own_noise() -> None:
    schedule = NoiseSchedule()
    t = torch.tensor([[0, 10, 400, 999, 3, 3], [5, 6, 7, 8, 9, 10]])
    x0, noise = (normal(2, *SHAPE, seed=seed, dtype=torch.float64) for seed in (1, 2))
    noisy = schedule.add_noise(x0, noise, t)
    for i in range(2):
        for k in range(6):
            step = int(t[i, k])
            expected = schedule.alpha[step] * x0[i, k] + schedule.sigma[step] * noise[i, k]
            torch.testing.assert_close(noisy[i, k], expected, atol=1e-12, rtol=0)
            assert schedule.snr(t)[i, k].item() == pytest.approx(float((schedule.alpha / schedule.sigma)[step] ** 2))


@given(
    timestep=st.integers(0, 999),
    uniform=st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=3, max_size=3),
    jitter=st.integers(1, 200),
)
def test_timesteps_of_parts_are_near_the_drawn_one(timestep: int, uniform: list[float], jitter: int) -> None:
    own = Parts(3, jitter=jitter).jittered(torch.tensor([timestep]), torch.tensor([uniform]), 6)
    assert own.shape == (1, 6)
    assert own[0, ::2].tolist() == own[0, 1::2].tolist(), "entries of a part share it"
    for value, u in zip(own[0, ::2].tolist(), uniform, strict=True):
        offset = min(math.floor(u * (2 * jitter + 1)), 2 * jitter + 1) - jitter
        assert abs(value - min(max(timestep + offset, 0), 999)) <= 1, "float32 rounds"


def test_every_jitter_is_as_likely() -> None:
    uniform = ((torch.arange(500) + 0.5) / 500)[:, None]
    own = Parts(1, jitter=2).jittered(torch.full((500,), 50), uniform, 1)
    assert torch.bincount(own[:, 0], minlength=53)[48:].tolist() == [100] * 5


def test_a_cascade_trains_both_of_its_halves() -> None:
    """Parts 0 and 2 of three with two entries each are first: alone at their timesteps, then given to the others."""
    parts = Parts(3, cascade=(0, 2))
    first = [True, True, False, False, True, True]
    assert parts.first(6, torch.device("cpu")).tolist() == first
    steps, active = parts.cascaded(torch.tensor([300, 700]), torch.tensor([0.49, 0.5]), 6)
    assert steps[0].tolist() == [300, 300, 999, 999, 300, 300]
    assert steps[1].tolist() == [0, 0, 700, 700, 0, 0]
    assert active.tolist() == [first, [not one for one in first]]
    own = torch.tensor([[1, 2, 3, 4, 5, 6]])
    assert parts.cascaded(own, torch.tensor([0.1]), 6)[0].tolist() == [[1, 2, 999, 999, 5, 6]]
    assert parts.cascaded(own, torch.tensor([0.9]), 6)[0].tolist() == [[0, 0, 3, 4, 0, 0]]


def test_one_part_of_a_code() -> None:
    code = normal(*SHAPE)
    torch.testing.assert_close(Parts(3).alone(code, 1), code[2:4], rtol=0, atol=0)
