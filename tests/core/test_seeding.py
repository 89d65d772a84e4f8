"""Keyed noise: the published generator, independent streams, the normal distribution."""

import numpy as np
import pytest
import torch
from scipy import stats

from z1g.core.seeding import keyed_bits, keyed_normal, keyed_uniform

MASK = (1 << 64) - 1


def split_mix(seed: int, n: int) -> list[int]:
    """SplitMix64 in Python's unbounded integers."""
    results = []
    for _ in range(n):
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        results.append(z ^ (z >> 31))
    return results


def test_published_values() -> None:
    """The first outputs of the generator at seed 1234567, as its authors' C code prints them."""
    assert split_mix(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("key", [(0, 0, 0), (42, 1_000_000, 7, 4), (2**40, 3, 1)])
def test_bits_are_the_generator(key: tuple[int, ...]) -> None:
    seed = 0
    for column in key:
        (seed,) = split_mix((seed + column) & MASK, 1)
    expected = np.array(split_mix(seed, 50), dtype=np.uint64).astype(np.int64)
    assert keyed_bits(torch.tensor([key]), 50)[0].tolist() == expected.tolist()


def test_rows_do_not_depend_on_each_other() -> None:
    keys = torch.tensor([[1, 2, 3], [1, 2, 4], [1, 3, 3]])
    together = keyed_normal(keys, (3, 5))
    assert together.shape == (3, 3, 5)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], keyed_normal(keys[i : i + 1], (3, 5)), atol=0, rtol=0)
    assert len(set(together[:, 0, 0].tolist())) == 3


def test_normal_distribution() -> None:
    """All numbers of many streams, one position of many streams, and neighbors within a stream."""
    keys = torch.stack(torch.meshgrid(torch.arange(40), torch.arange(25), torch.tensor([9]), indexing="ij"), -1)
    noise = keyed_normal(keys.reshape(-1, 3), (201,)).double().numpy()
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    for position in (0, 1, 100, 200):
        assert stats.kstest(noise[:, position], "norm").pvalue > 1e-3
    for lag in (1, 100, 101):
        assert abs((noise[:, lag:] * noise[:, :-lag]).mean()) < 4 / np.sqrt(noise[:, lag:].size)
    assert abs((noise[1:] * noise[:-1]).mean()) < 4 / np.sqrt(noise[1:].size)


def test_uniform_distribution() -> None:
    values = keyed_uniform(torch.stack([torch.arange(5000), torch.full((5000,), 3)], dim=1)).double().numpy()
    assert values.min() >= 0
    assert values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 1e-3
