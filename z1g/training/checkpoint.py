"""Checkpoints, written atomically and restored by the next start."""

import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from z1g.core.errors import UserError
from z1g.core.files import atomic_file
from z1g.core.names import counted
from z1g.core.recorded import stage_folder
from z1g.core.weights import load_exactly
from z1g.training.zip_seal import require_sealed, seal

log = logging.getLogger("z1g")
KEEP = 2
UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError)
"""Errors of torch.load on truncated, overwritten or foreign files."""


class CheckpointFolder:
    """Folder of `step-00001000.pt` files. The newest readable one is used; old ones are removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def steps(self) -> list[int]:
        """Steps of the checkpoints on disk, ascending."""
        numbers = [file.stem.removeprefix("step-") for file in self.path.glob("step-*.pt")]
        return sorted(int(number) for number in numbers if number.isdigit())

    def file(self, step: int) -> Path:
        """Path of the checkpoint of a step."""
        return self.path / f"step-{step:08d}.pt"

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state of a step (tensors, numbers, strings, lists and dicts only), then remove old checkpoints."""
        self._write(self.file(step), state)
        for old in self.steps()[:-KEEP]:
            self.file(old).unlink(missing_ok=True)

    def damaged(self) -> list[str]:
        """Checkpoints and best weights that are not as they were written, with reasons."""
        problems = []
        for file in sorted(self.path.glob("*.pt")):
            try:
                require_sealed(file, self._owner(file))
            except (OSError, ValueError) as error:
                problems.append(f"{file} is damaged: {error}")
        return problems

    def best(self, step: int) -> Path:
        """Path of the weights of a step with the best validation so far."""
        return self.path / f"best-{step:08d}.pt"

    def save_best(self, step: int, state: dict[str, Any]) -> None:
        """Write the weights of a step. `drop_best_but` removes older ones after the next checkpoint."""
        self._write(self.best(step), state)

    def _write(self, file: Path, state: dict[str, Any]) -> None:
        with atomic_file(file) as temporary:
            torch.save(state, temporary)
            seal(temporary, self._owner(file))

    def _read(self, file: Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
        require_sealed(file, self._owner(file))
        state: dict[str, Any] = torch.load(file, map_location=map_location, weights_only=True)
        return state

    def _owner(self, file: Path) -> str:
        """What the checksum of a file covers besides its content: its name and, in a results tree, its stage."""
        folder = stage_folder(file)
        return file.name if folder is None else f"{folder.name}/{file.name}"

    def drop_best_but(self, step: int) -> None:
        """Remove all best weights except those of one step."""
        for file in self.path.glob("best-*.pt"):
            if file != self.best(step):
                file.unlink(missing_ok=True)

    def load_best(self, step: float) -> dict[str, Any]:
        """The best weights, of a step. Raises UserError if they cannot be read."""
        file = self.best(int(step))
        try:
            state = self._read(file)
        except UNREADABLE as error:
            raise UserError(f"{file} cannot be read ({error}); delete {self.path} to train from scratch") from error
        return state

    def load_best_into(self, module: nn.Module, step: float, names: list[str]) -> None:
        """Load the best weights, of a step, which contain exactly `names`. Raises UserError if they do not fit."""
        self._exactly(module, self.load_best(step), names, self.best(int(step)))

    def take(
        self, module: nn.Module, state: dict[str, Any], step: int, names: list[str], entries: Sequence[str]
    ) -> None:
        """Load a module from the entry `objective` of a step's state, which has all `entries`.

        names: the module's tensors and extra state that the entry contains, in this order. Raises UserError if
        something is missing, extra, of another shape or in another order.
        """
        if missing := [name for name in entries if name not in state]:
            raise UserError(f"{self.file(step)}: {', '.join(missing)} is missing. {self._remedy()}")
        self._exactly(module, state["objective"], names, self.file(step))

    def _exactly(self, module: nn.Module, state: dict[str, Any], names: list[str], file: Path) -> None:
        load_exactly(module, state, file, only=names, remedy=self._remedy())
        # The optimizer and the average identify parameters by their index.
        misplaced = [name for name, other in zip(names, state, strict=True) if name != other]
        if misplaced:
            raise UserError(f"{file}: tensors are in another order, starting with {misplaced[0]}. {self._remedy()}")

    def _remedy(self) -> str:
        return f"Another version of z1g wrote it; delete {self.path} to train from scratch"

    def load(self, map_location: str | torch.device = "cpu") -> tuple[int, dict[str, Any]] | None:
        """Step and state of the newest readable checkpoint, or None if there are no checkpoints.

        A file that does not have its checksum counts as unreadable. No code in it is executed (`weights_only`). Raises
        UserError if none of the files can be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                state = self._read(self.file(step), map_location)
            except UNREADABLE as error:
                log.warning("%s cannot be read, trying the one before: %s", self.file(step), str(error).split("\n")[0])
            else:
                return step, state
        if steps:
            raise UserError(
                f"{self.path}: none of {counted(len(steps), 'checkpoint')} can be read; delete them to train "
                "from scratch"
            )
        return None
