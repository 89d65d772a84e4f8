"""Which object each position of each step sees: a pure function of seed, step and position."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
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
"""Batches made before they are needed."""


@dataclass(frozen=True)
class Draw:
    """One position of one step: which object, in which pass over the data, and the key of its random numbers."""

    object_index: int
    epoch: int
    key: tuple[int, int, int]


def draw(seed: int, step: int, slot: int, batch_size: int, n_objects: int) -> Draw:
    """Objects come in a new random order each epoch; epochs run on through batches."""
    epoch, place = divmod(step * batch_size + slot, n_objects)
    return Draw(int(_order(seed, epoch, n_objects)[place]), epoch, (seed, step, slot))


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, n_objects: int) -> NDArray[np.int64]:
    return numpy_generator(seed, epoch, 0).permutation(n_objects)


def batch_noise(batch: Batch, shape: tuple[int, ...], purpose: int, device: torch.device) -> Tensor:
    """Standard normal [B,*shape], each row from its sample's key and a number that tells uses apart."""
    return keyed_normal(_keys(batch, purpose, device), shape)


def batch_uniform(batch: Batch, purpose: int, device: torch.device) -> Tensor:
    """Uniform [B] in [0,1), keyed like `batch_noise`."""
    return keyed_uniform(_keys(batch, purpose, device))


def _keys(batch: Batch, purpose: int, device: torch.device) -> Tensor:
    keys = batch["key"].to(device)
    return torch.cat([keys, torch.full_like(keys[:, :1], purpose)], dim=1)


class StepData(Dataset[Sample]):
    """Samples addressed by global position (step·batch + slot); `make` turns a draw into tensors."""

    def __init__(
        self, make: Callable[[Draw], Sample], n_objects: int, batch_size: int, seed: int, in_memory: bool = False
    ) -> None:  # fmt: skip
        """in_memory: `make` only picks from what this process holds, which other processes would not make faster."""
        self.make, self.n_objects, self.batch_size, self.seed = make, n_objects, batch_size, seed
        self.in_memory = in_memory

    def __getitem__(self, position: int) -> Sample:
        step, slot = divmod(position, self.batch_size)
        chosen = draw(self.seed, step, slot, self.batch_size, self.n_objects)
        sample = self.make(chosen)
        sample["key"] = torch.tensor(chosen.key)
        sample["object_index"] = torch.tensor(chosen.object_index)
        sample["epoch"] = torch.tensor(chosen.epoch)
        return sample

    def batches(self, start: int, stop: int, rank: int, world: int, workers: int) -> DataLoader[Any]:
        """Loader of this rank's share of the steps start..stop: a contiguous slice of every global batch."""
        share = self.batch_size // world
        positions = [
            list(range(step * self.batch_size + rank * share, step * self.batch_size + (rank + 1) * share))
            for step in range(start, stop)
        ]
        workers = 0 if self.in_memory else workers
        context = "spawn" if workers else None
        return DataLoader(self, batch_sampler=positions, num_workers=workers, multiprocessing_context=context)


def ahead(batches: Iterator[Batch], pin: bool) -> Iterator[Batch]:
    """The same batches, made by a thread while the ones before are worked on; pinned ones reach a GPU unwaited for."""

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
    """A batch in pieces of at most `size` rows, each with its share of the whole."""
    total = len(batch["key"])
    step = size or total
    for first in range(0, total, step):
        piece = {name: value[first : first + step] for name, value in batch.items()}
        yield piece, len(piece["key"]) / total
