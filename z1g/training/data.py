"""Sampling of training objects, a pure function of seed, step and position in the batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from z1g.core.seeding import keyed_normal, keyed_uniform, numpy_generator

Sample = dict[str, Tensor]
Batch = dict[str, Tensor]
AHEAD = 2
"""Batches prefetched."""


@dataclass(frozen=True)
class Draw:
    """One position of one step: object, pass over the data, and key of the random numbers."""

    object_index: int
    epoch: int
    key: tuple[int, int, int]


class Shares:
    """What share of the samples each of N objects gets: `values` [N] float64, positive, with sum 1."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self.values = values

    @classmethod
    def of_categories(cls, categories: Sequence[str], power: float) -> Shares:
        """Shares of objects by the names of their categories.

        A category of n objects has a share proportional to n to this power, which its objects have equal parts of.
        Objects whose category is empty are a category too.
        """
        _, category, count = np.unique(np.array(categories), return_inverse=True, return_counts=True)
        values = count[category] ** (power - 1.0)
        return cls(values / values.sum())


def draw(
    seed: int, step: int, slot: int, batch_size: int, n_objects: int, shares: Shares | None = None
) -> Draw:  # fmt: skip
    """The object at a position of a batch. Each epoch has a new random order; epochs may end within a batch.

    An epoch has as many samples as there are objects: each object once or, with `shares`, as often as its share says,
    rounded up or down at random.
    """
    epoch, rank = divmod(step * batch_size + slot, n_objects)
    return Draw(int(_order(seed, epoch, n_objects, shares)[rank]), epoch, (seed, step, slot))


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, n_objects: int, shares: Shares | None) -> NDArray[np.int64]:
    generator = numpy_generator(seed, epoch, 0)
    order = generator.permutation(n_objects)
    if shares is None:
        return order
    # Systematic sampling: of n points at equal distances, those in an object's interval are its samples.
    reached = np.cumsum(shares.values[order])
    reached *= n_objects / reached[-1]
    counts = np.diff(np.floor(reached + generator.random()), prepend=0.0).astype(np.int64)
    return generator.permutation(np.repeat(order, counts))


def batch_noise(batch: Batch, shape: tuple[int, ...], purpose: int, device: torch.device) -> Tensor:
    """Standard normal noise [B,*shape]. Each row depends on its sample's key and the number `purpose`."""
    return keyed_normal(_keys(batch, purpose, device), shape)


def batch_uniform(batch: Batch, purpose: int, device: torch.device) -> Tensor:
    """Uniform numbers [B] in [0,1), keyed like `batch_noise`."""
    return keyed_uniform(_keys(batch, purpose, device))


def _keys(batch: Batch, purpose: int, device: torch.device) -> Tensor:
    keys = batch["key"].to(device)
    return torch.cat([keys, torch.full_like(keys[:, :1], purpose)], dim=1)


class StepData(Dataset[Sample]):
    """Data set indexed by global position (step·batch + slot); `make` converts a draw to tensors."""

    def __init__(
        self, make: Callable[[Draw], Sample], n_objects: int, batch_size: int, seed: int, in_memory: bool = False,
        shares: Shares | None = None,
    ) -> None:  # fmt: skip
        """in_memory: `make` only indexes tensors in memory, so that worker processes are not used."""
        self.make, self.n_objects, self.batch_size, self.seed = make, n_objects, batch_size, seed
        self.in_memory, self.shares = in_memory, shares

    def __getitem__(self, position: int) -> Sample:
        step, slot = divmod(position, self.batch_size)
        drawn = draw(self.seed, step, slot, self.batch_size, self.n_objects, self.shares)
        sample = self.make(drawn)
        sample["key"] = torch.tensor(drawn.key)
        sample["object_index"] = torch.tensor(drawn.object_index)
        sample["epoch"] = torch.tensor(drawn.epoch)
        return sample

    def batches(self, start: int, stop: int, rank: int, world: int, workers: int) -> DataLoader[Any]:
        """Loader of this rank's part of the steps start..stop: a contiguous slice of every global batch."""
        share = self.batch_size // world
        positions = [
            list(range(step * self.batch_size + rank * share, step * self.batch_size + (rank + 1) * share))
            for step in range(start, stop)
        ]
        workers = 0 if self.in_memory else workers
        context = "spawn" if workers else None
        return DataLoader(self, batch_sampler=positions, num_workers=workers, multiprocessing_context=context)


def ahead(batches: Iterator[Batch], pin: bool) -> Iterator[Batch]:
    """The same batches, prefetched by a thread. With `pin` they are in pinned memory, for asynchronous copies."""

    def following() -> Batch | None:
        batch = next(batches, None)
        if batch is None or not pin:
            return batch
        return {name: value.pin_memory() for name, value in batch.items()}

    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(following) for _ in range(AHEAD))
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(following))
            yield batch


def micro_batches(batch: Batch, size: int | None) -> Iterator[tuple[Batch, float]]:
    """Split a batch into pieces of at most `size` rows, each with its fraction of the batch."""
    total = len(batch["key"])
    step = size or total
    for first in range(0, total, step):
        piece = {name: value[first : first + step] for name, value in batch.items()}
        yield piece, len(piece["key"]) / total
