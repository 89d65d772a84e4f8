"""Which object each position of each step sees: a pure function of seed, step and position."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from z1g.seeding import keyed_normal, numpy_generator

Sample = dict[str, Tensor]
Batch = dict[str, Tensor]


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
    rows = [keyed_normal(shape, *key, purpose) for key in batch["key"].tolist()]
    return torch.stack(rows).to(device)


def batch_uniform(batch: Batch, purpose: int, device: torch.device) -> Tensor:
    """Uniform [B] in [0,1), keyed like `batch_noise`."""
    values = [numpy_generator(*key, purpose).random() for key in batch["key"].tolist()]
    return torch.tensor(values, dtype=torch.float32, device=device)


class StepData(Dataset[Sample]):
    """Samples addressed by global position (step·batch + slot); `make` turns a draw into tensors."""

    def __init__(self, make: Callable[[Draw], Sample], n_objects: int, batch_size: int, seed: int) -> None:
        self.make, self.n_objects, self.batch_size, self.seed = make, n_objects, batch_size, seed

    def __getitem__(self, position: int) -> Sample:
        step, slot = divmod(position, self.batch_size)
        chosen = draw(self.seed, step, slot, self.batch_size, self.n_objects)
        sample = self.make(chosen)
        sample["key"] = torch.tensor(chosen.key)
        sample["object_index"] = torch.tensor(chosen.object_index)
        sample["epoch"] = torch.tensor(chosen.epoch)
        return sample

    def batches(self, start: int, stop: int, rank: int, world: int, workers: int) -> "DataLoader[Any]":
        """Loader of this rank's share of the steps start..stop: a contiguous slice of every global batch."""
        share = self.batch_size // world
        positions = [
            list(range(step * self.batch_size + rank * share, step * self.batch_size + (rank + 1) * share))
            for step in range(start, stop)
        ]
        context = "spawn" if workers else None
        return DataLoader(self, batch_sampler=positions, num_workers=workers, multiprocessing_context=context)


def micro_batches(batch: Batch, size: int | None) -> Iterator[tuple[Batch, float]]:
    """A batch in pieces of at most `size` rows, each with its share of the whole."""
    total = len(batch["key"])
    step = size or total
    for first in range(0, total, step):
        piece = {name: value[first : first + step] for name, value in batch.items()}
        yield piece, len(piece["key"]) / total
