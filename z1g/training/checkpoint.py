"""Checkpoints that are whole or absent, found again by the next start."""

import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from z1g.core.errors import UserError
from z1g.core.files import atomic_file
from z1g.core.weights import load_exactly

log = logging.getLogger("z1g")
KEEP = 2
UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError)
"""What torch.load raises on files that are cut short, overwritten or foreign."""


class CheckpointFolder:
    """`step-00001000.pt` files; the newest readable one wins, older ones are removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def steps(self) -> list[int]:
        """Steps of the checkpoints on disk, ascending."""
        numbers = [file.stem.removeprefix("step-") for file in self.path.glob("step-*.pt")]
        return sorted(int(number) for number in numbers if number.isdigit())

    def file(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.path / f"step-{step:08d}.pt"

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state of a step (tensors, numbers, strings, lists and dicts only), then drop older ones."""
        with atomic_file(self.file(step)) as temporary:
            torch.save(state, temporary)
        for old in self.steps()[:-KEEP]:
            self.file(old).unlink(missing_ok=True)

    def best(self, step: int) -> Path:
        """Where the weights of a step lie that was the best so far."""
        return self.path / f"best-{step:08d}.pt"

    def save_best(self, step: int, state: dict[str, Any]) -> None:
        """Keep the weights of a step. Older ones stay until a checkpoint that knows of the new ones is on disk."""
        with atomic_file(self.best(step)) as temporary:
            torch.save(state, temporary)

    def drop_best_but(self, step: int) -> None:
        """Remove all kept weights but one step's."""
        for file in self.path.glob("best-*.pt"):
            if file != self.best(step):
                file.unlink(missing_ok=True)

    def load_best(self, step: float) -> dict[str, Any]:
        """The kept weights of a step. Raises UserError where they cannot be read."""
        file = self.best(int(step))
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except UNREADABLE as error:
            raise UserError(f"{file} cannot be read ({error}); delete {self.path} to train anew") from error
        return state

    def load_best_into(self, module: nn.Module, step: float, names: list[str]) -> None:
        """Load the kept weights of a step, which hold exactly `names`. Raises UserError where they do not fit."""
        self._exactly(module, self.load_best(step), names, self.best(int(step)))

    def take(
        self, module: nn.Module, state: dict[str, Any], step: int, names: list[str], entries: Sequence[str]
    ) -> None:
        """Load a module from the entry `objective` of a step's state, which has all `entries`.

        names: the module's tensors and extra state that the entry holds, in this order. Raises UserError where
        something is missing, extra, of another shape or elsewhere.
        """
        if lacking := [name for name in entries if name not in state]:
            raise UserError(f"{self.file(step)}: {', '.join(lacking)} is missing. {self._remedy()}")
        self._exactly(module, state["objective"], names, self.file(step))

    def _exactly(self, module: nn.Module, state: dict[str, Any], names: list[str], file: Path) -> None:
        load_exactly(module, state, file, only=names, remedy=self._remedy())
        # The optimizer and the average know parameters by their places.
        moved = [name for name, other in zip(names, state, strict=True) if name != other]
        if moved:
            raise UserError(f"{file}: tensors stand in another order, from {moved[0]} on. {self._remedy()}")

    def _remedy(self) -> str:
        return f"Another version of z1g wrote it; delete {self.path} to train anew"

    def load(self, map_location: str | torch.device = "cpu") -> tuple[int, dict[str, Any]] | None:
        """Step and state of the newest readable checkpoint, or None where there is no checkpoint at all.

        Nothing in the file is executed (`weights_only`). Raises UserError where none of the files can be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                state: dict[str, Any] = torch.load(self.file(step), map_location=map_location, weights_only=True)
            except UNREADABLE as error:
                log.warning("%s cannot be read, trying the one before: %s", self.file(step), str(error).split("\n")[0])
            else:
                return step, state
        if steps:
            raise UserError(f"{self.path}: none of the {len(steps)} checkpoints can be read; delete them to start anew")
        return None
