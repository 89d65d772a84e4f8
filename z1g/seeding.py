"""Random numbers that depend on what they are for, never on what ran before.

Every draw of training comes from a generator keyed by (seed, step, position in the global batch). A resumed run, or one
on more ranks, therefore sees the same numbers, and checkpoints need no RNG state.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with torch's global CPU generator at `seed`; the old state returns afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def numpy_generator(*key: int) -> np.random.Generator:
    """A numpy generator for a key of non-negative integers."""
    return np.random.default_rng(list(key))


def torch_generator(*key: int) -> torch.Generator:
    """A CPU torch generator for a key of non-negative integers."""
    return torch.Generator().manual_seed(int(numpy_generator(*key).integers(2**63)))


def keyed_normal(shape: tuple[int, ...], *key: int) -> torch.Tensor:
    """Standard normal numbers for a key, float32 on the CPU."""
    return torch.randn(shape, generator=torch_generator(*key))
