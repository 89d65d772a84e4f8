"""The forward and backward passes of a step: launched one kernel at a time, or recorded once and replayed."""

import gc
import logging
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from z1g.training.data import Batch, micro_batches

log = logging.getLogger("z1g")
WARM_UP = 3
"""Steps before recording: libraries choose their kernels and workspaces in them."""
TOGETHER = 2**25
"""Values that ranks exchange at once."""


class Launched:
    """The passes of this rank's objects, a few at a time; DDP averages the gradients over the ranks."""

    def __init__(self, objective: nn.Module, accelerator: Accelerator, micro_batch: int | None) -> None:
        self.objective, self.accelerator, self.micro_batch = objective, accelerator, micro_batch
        self.model = accelerator.prepare(objective)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Losses, with gradients left in place."""
        accelerator = self.accelerator
        totals: dict[str, Tensor] = {}
        pieces = list(micro_batches(batch, self.micro_batch))
        for i, (piece, share) in enumerate(pieces):
            with torch.no_grad():
                prepared = self.objective.prepare(piece)  # type: ignore[operator]
            last = i == len(pieces) - 1
            with nullcontext() if last else accelerator.no_sync(self.model), accelerator.autocast():
                losses = self.model(prepared)
            accelerator.backward(losses["loss"] * share)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + share * value.detach()
        return totals


class Replayed:
    """The passes of a whole batch as one CUDA graph, where launching their kernels takes longer than they.

    Every batch must be of the same shapes, and the objective must not look at values on the host. Ranks average their
    gradients after the passes.
    """

    def __init__(self, objective: Any, accelerator: Accelerator) -> None:
        self.objective, self.accelerator = objective.to(accelerator.device), accelerator
        self.trained = [p for p in objective.parameters() if p.requires_grad]
        self.done = 0
        self.inputs: Batch = {}
        self.losses: dict[str, Tensor] = {}
        self.gradients: list[Tensor | None] = []
        self.replay: Callable[[], None] | None = None
        if accelerator.num_processes > 1:
            for parameter in self.trained:
                torch.distributed.broadcast(parameter.data, 0)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Losses, with gradients left in place."""
        if self.done == WARM_UP:
            self._try_to_record(batch)
        self.done += 1
        if self.replay is None:
            losses = {name: value.detach() for name, value in self._passes(batch).items()}
        else:
            losses = self._replayed(batch, self.replay)
        self._average()
        return losses

    def _replayed(self, batch: Batch, replay: Callable[[], None]) -> dict[str, Tensor]:
        for name, value in batch.items():
            self.inputs[name].copy_(value, non_blocking=True)
        replay()
        for parameter, gradient in zip(self.trained, self.gradients, strict=True):
            parameter.grad = gradient
        # The next replay writes over them while the host may still read.
        return {name: value.clone() for name, value in self.losses.items()}

    def _try_to_record(self, batch: Batch) -> None:
        try:
            self._record(batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            said = str(error).partition("\n")[0]
            log.warning("training goes on at the speed of launches, as it cannot be recorded: %s", said)

    def _record(self, batch: Batch) -> None:
        self.inputs = {name: value.clone() for name, value in batch.items()}
        for parameter in self.trained:
            parameter.grad = None
        # What the first steps took is not for the recording's own memory.
        gc.collect()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        # Other threads pin memory meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            losses = self._passes(self.inputs)
        self.losses = {name: value.detach() for name, value in losses.items()}
        self.gradients = [parameter.grad for parameter in self.trained]
        self.replay = graph.replay
        log.debug("recorded the passes of %d objects", len(batch["key"]))

    def _passes(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            prepared = self.objective.prepare(batch)
        with self.accelerator.autocast():
            losses: dict[str, Tensor] = self.objective(prepared)
        losses["loss"].backward()
        return losses

    def _average(self) -> None:
        """Mean gradients over the ranks, many tensors a message."""
        if self.accelerator.num_processes == 1:
            return
        for some in _messages([p.grad for p in self.trained if p.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in some])
            torch.distributed.all_reduce(flat)
            flat /= self.accelerator.num_processes
            parts = flat.split([gradient.numel() for gradient in some])
            torch._foreach_copy_(some, [part.view(g.shape) for part, g in zip(parts, some, strict=True)])


def _messages(gradients: list[Tensor]) -> list[list[Tensor]]:
    """Tensors in groups of a bounded size, in order."""
    groups: list[list[Tensor]] = []
    room = 0
    for gradient in gradients:
        if room < gradient.numel() or not groups:
            groups.append([])
            room = TOGETHER
        groups[-1].append(gradient)
        room -= gradient.numel()
    return groups


def passes(objective: Any, accelerator: Accelerator, micro_batch: int | None, *, replay: bool) -> Launched | Replayed:
    """Replayed ones where that is asked for and can be: on a GPU, with the whole batch at once."""
    if replay and accelerator.device.type == "cuda" and micro_batch is None and objective.replayable:
        return Replayed(objective, accelerator)
    return Launched(objective, accelerator, micro_batch)
