"""Keyed random numbers: they depend on their key only, never on earlier draws.

Every draw of training has a key of (seed, step, position in the global batch). A resumed run, or one on more ranks,
therefore draws the same numbers, and checkpoints need no RNG state. Choices (views, orders) come from numpy; noise is a
function of its key and position in plain tensor operations, so it is drawn on the device that needs it.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_GAMMA, _MIX_1, _MIX_2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""SplitMix64's 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9 and 0x94D049BB133111EB as signed numbers."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with torch's global CPU generator seeded with `seed`; its state is restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def numpy_generator(*key: int) -> np.random.Generator:
    """A numpy generator for a key of non-negative integers."""
    return np.random.default_rng(list(key))


def torch_generator(*key: int) -> torch.Generator:
    """A CPU torch generator for a key of non-negative integers."""
    return torch.Generator().manual_seed(int(numpy_generator(*key).integers(2**63)))


def keyed_bits(keys: Tensor, n: int) -> Tensor:
    """`n` random int64 numbers per row of keys [B,K] (int64): [B,n], on the device of the keys.

    SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), seeded by its own mixing function over the columns of the key.
    """
    seed = torch.zeros_like(keys[:, 0])
    for column in keys.unbind(dim=1):
        seed = _mix(seed + column + _GAMMA)
    return _mix(seed[:, None] + torch.arange(1, n + 1, device=keys.device) * _GAMMA)


def keyed_uniform(keys: Tensor) -> Tensor:
    """Uniform float32 numbers [B] in [0,1), one per row of keys [B,K]."""
    return _shifted(keyed_bits(keys, 1)[:, 0], 40).float() * 2.0**-24


def keyed_normal(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 numbers [B,*shape], one stream per row of keys [B,K] (Box & Muller 1958)."""
    n = math.prod(shape)
    bits = keyed_bits(keys, -(-n // 2))
    # +1 avoids the logarithm of zero.
    radius = ((_shifted(bits, 32) + 1).float() * 2.0**-32).log().mul(-2).sqrt()
    angle = (bits & 0xFFFFFFFF).float() * (2.0**-32 * 2 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :n].reshape(-1, *shape)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _MIX_1
    x = (x ^ _shifted(x, 27)) * _MIX_2
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, n: int) -> Tensor:
    """Logical right shift; torch's operator is arithmetic."""
    return (x >> n) & ((1 << (64 - n)) - 1)
