"""Fits training into the memory of the GPU: fewer objects at once, then recomputed activations."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor

from z1g.core.errors import UserError
from z1g.training.data import Batch
from z1g.training.objective import Objective
from z1g.training.outcome import everywhere
from z1g.training.passes import EagerPasses, ReplayedPasses
from z1g.training.speed import recompute

log = logging.getLogger("z1g")
Passes = EagerPasses | ReplayedPasses


class FittedPasses:
    """Passes that are tried again with half as many objects at once when the GPU is out of memory.

    With one object at once, activations are recomputed. Neither changes results but by rounding. Several ranks agree
    before their first step, since one that is out of memory within a step would leave the others waiting for its
    gradients; out of memory later, they end.
    """

    def __init__(
        self, passes: Passes, objective: Objective, accelerator: Accelerator, *, recomputes: bool, remedy: str = "",
        scratch: int = 0,
    ) -> None:  # fmt: skip
        """recomputes: whether activations are already recomputed. remedy: what to do if nothing else needs less memory.

        scratch: bytes that the optimizer needs besides its state, once the passes have ended.
        """
        self.passes, self.objective, self.accelerator, self.recomputes = passes, objective, accelerator, recomputes
        self.remedy, self.scratch = remedy, scratch
        self.agreed = accelerator.num_processes == 1

    def __call__(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Run the passes and return the losses; gradients are in `grad` of the parameters.

        seed: of random layers, at the start of each attempt. Raises UserError if nothing else needs less memory.
        """
        if not self.agreed:
            while everywhere(self.accelerator, self._fails(batch, seed), "any"):
                self._lower(len(batch["key"]))
            self.agreed = True
        while True:
            torch.manual_seed(seed)
            # Outside of the handler, whose traceback keeps the tensors of the attempt.
            try:
                losses = self.passes(batch)
                self._reserve()
                return losses
            except torch.OutOfMemoryError as error:
                if self.accelerator.num_processes > 1:
                    raise UserError(
                        f"{self._state(len(batch['key']))}: lower train.micro_batch or set train.speed.recompute to "
                        "true, neither of which changes results, and run the same command again"
                    ) from error
            self._lower(len(batch["key"]))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raise UserError when the GPU is out of memory outside of passes: in the optimizer or in a validation."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise UserError(
                "the GPU is out of memory beside the passes, when weights are updated or validated, of which no part "
                f"can be left out. {self.remedy}"
            ) from error

    def _fails(self, batch: Batch, seed: int) -> Tensor:
        """1 if this rank alone is out of memory with the batch, else 0. Gradients are left to be cleared."""
        torch.manual_seed(seed)
        failed = torch.zeros((), device=self.accelerator.device)
        try:
            with self.passes.alone():
                self.passes(batch)
                self._reserve()
        except torch.OutOfMemoryError:
            failed += 1
        self._clear()
        return failed

    def _lower(self, n: int) -> None:
        """Choose what needs less memory for a batch of n objects. Raises UserError if there is nothing left."""
        self._clear()
        objects, state = min(self.passes.micro_batch or n, n), self._state(n)
        if objects == 1 and self.recomputes:
            raise UserError(f"{state}, though activations are recomputed. {self.remedy}".rstrip())
        if objects == 1:
            recompute(self.objective.networks())
            self.recomputes = True
            log.warning("%s: activations are recomputed, a third more work, from here on", state)
        else:
            objects = (objects + 1) // 2
            log.warning("%s: %d from here on, which changes results by rounding only", state, objects)
        if isinstance(self.passes, ReplayedPasses):
            self.passes = EagerPasses(self.objective, self.accelerator, objects)
        self.passes.micro_batch = objects

    def _reserve(self) -> None:
        """Let the allocator find the optimizer's memory, since a step of it cannot be tried again."""
        if self.scratch and self.accelerator.device.type == "cuda":
            torch.empty(self.scratch, dtype=torch.uint8, device=self.accelerator.device)

    def _state(self, n: int) -> str:
        objects = min(self.passes.micro_batch or n, n)
        return f"the GPU is out of memory with {objects} object{'s' if objects > 1 else ''} at once"

    def _clear(self) -> None:
        self.objective.zero_grad(set_to_none=True)
        self.objective.discard()
        gc.collect()
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
