"""The forward and backward passes of a step: run eagerly, or captured in a CUDA graph and replayed."""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from z1g.training.data import Batch, micro_batches
from z1g.training.gradients import average
from z1g.training.objective import Objective

log = logging.getLogger("z1g")
WARM_UP = 3
"""Steps before the capture, in which libraries select kernels and allocate workspaces."""


class EagerPasses:
    """Eager passes of this rank's micro-batches. DDP averages the gradients over the ranks."""

    def __init__(self, objective: Any, accelerator: Accelerator, micro_batch: int | None) -> None:
        self.objective, self.accelerator, self.micro_batch = objective, accelerator, micro_batch
        self.model = accelerator.prepare(objective)
        if accelerator.num_processes == 1:  # DDP takes modules on one device only
            _rest(objective)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Run the passes and return the losses; gradients are in `grad` of the parameters."""
        accelerator = self.accelerator
        totals: dict[str, Tensor] = {}
        pieces = list(micro_batches(batch, self.micro_batch))
        for i, (piece, share) in enumerate(pieces):
            with torch.no_grad():
                prepared = self.objective.prepare(piece)
            last = i == len(pieces) - 1
            with nullcontext() if last else accelerator.no_sync(self.model), accelerator.autocast():
                losses = self.model(prepared)
            accelerator.backward(losses["loss"] * share)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + share * value.detach()
        return totals

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let ranks keep their own gradients while the block runs; benchmarks time steps with and without averages."""
        with self.accelerator.no_sync(self.model):
            yield


class ReplayedPasses:
    """The passes of a whole batch as one CUDA graph, which removes the overhead of kernel launches.

    The objective must not synchronize with the host. A batch of other tensors or shapes, in another phase of training,
    begins another graph. Ranks average their gradients after the passes.
    """

    micro_batch: int | None = None

    def __init__(self, objective: Any, accelerator: Accelerator) -> None:
        self.objective, self.accelerator = objective.to(accelerator.device), accelerator
        _rest(objective)
        self.trained = [p for p in objective.parameters() if p.requires_grad]
        self.done = 0
        self.inputs: Batch = {}
        self.losses: dict[str, Tensor] = {}
        self.gradients: list[Tensor | None] = []
        self.replay: Callable[[], None] | None = None
        self.averages = accelerator.num_processes > 1
        if self.averages:
            for parameter in self.trained:
                torch.distributed.broadcast(parameter.data, 0)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Run the passes and return the losses; gradients are in `grad` of the parameters."""
        if self.replay is not None and not self._fits(batch):
            self.replay, self.done = None, 0
            self.inputs, self.losses, self.gradients = {}, {}, []
        if self.done == WARM_UP:
            self._try_to_capture(batch)
        self.done += 1
        if self.replay is None:
            losses = {name: value.detach() for name, value in self._passes(batch).items()}
        else:
            losses = self._replayed(batch, self.replay)
        if self.averages:
            average([p.grad for p in self.trained if p.grad is not None], self.accelerator.num_processes)
        return losses

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let ranks keep their own gradients while the block runs; benchmarks time steps with and without averages."""
        averages, self.averages = self.averages, False
        try:
            yield
        finally:
            self.averages = averages

    def _fits(self, batch: Batch) -> bool:
        """Whether a batch has the tensors that were captured."""
        return {name: value.shape for name, value in batch.items()} == {
            name: value.shape for name, value in self.inputs.items()
        }

    def _replayed(self, batch: Batch, replay: Callable[[], None]) -> dict[str, Tensor]:
        for name, value in batch.items():
            self.inputs[name].copy_(value, non_blocking=True)
        replay()
        for parameter, gradient in zip(self.trained, self.gradients, strict=True):
            parameter.grad = gradient
        # The next replay overwrites the losses while the host may still read them.
        return {name: value.clone() for name, value in self.losses.items()}

    def _try_to_capture(self, batch: Batch) -> None:
        try:
            self._capture(batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            log.warning("training continues without a CUDA graph, because the capture failed: %s", reason)

    def _capture(self, batch: Batch) -> None:
        self.inputs = {name: value.clone() for name, value in batch.items()}
        for parameter in self.trained:
            parameter.grad = None
        # The capture allocates its own memory pool; free that of the first steps.
        gc.collect()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        # Other threads pin memory during the capture.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            losses = self._passes(self.inputs)
        self.losses = {name: value.detach() for name, value in losses.items()}
        self.gradients = [parameter.grad for parameter in self.trained]
        self.replay = graph.replay
        log.debug("captured the passes of %d objects", len(batch["key"]))

    def _passes(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            prepared = self.objective.prepare(batch)
        with self.accelerator.autocast():
            losses: dict[str, Tensor] = self.objective(prepared)
        losses["loss"].backward()
        return losses


def _rest(objective: Any) -> None:
    if isinstance(objective, Objective):
        for network in objective.idle():
            network.cpu()


def passes(
    objective: Any, accelerator: Accelerator, micro_batch: int | None, *, replay: bool
) -> EagerPasses | ReplayedPasses:
    """Replayed passes if requested and supported: on a GPU, with the whole batch at once. Otherwise eager passes."""
    if replay and accelerator.device.type == "cuda" and micro_batch is None and objective.replayable:
        return ReplayedPasses(objective, accelerator)
    return EagerPasses(objective, accelerator, micro_batch)
