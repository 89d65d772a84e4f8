"""Checkpoints that are whole or absent, found again by the next start."""

from pathlib import Path
from typing import Any

import torch

from z1g.files import atomic_file

KEEP = 2


class CheckpointFolder:
    """`step-00001000.pt` files; the newest readable one wins, older ones are removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def steps(self) -> list[int]:
        """Steps of the checkpoints on disk, ascending."""
        return sorted(int(file.stem.split("-")[1]) for file in self.path.glob("step-*.pt"))

    def file(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.path / f"step-{step:08d}.pt"

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state of a step (tensors, numbers, strings, lists and dicts only), then drop older ones."""
        with atomic_file(self.file(step)) as temporary:
            torch.save(state, temporary)
        for old in self.steps()[:-KEEP]:
            self.file(old).unlink(missing_ok=True)

    def load(self, map_location: str | torch.device = "cpu") -> tuple[int, dict[str, Any]] | None:
        """Step and state of the newest checkpoint, or None. Nothing in the file is executed (`weights_only`)."""
        steps = self.steps()
        if not steps:
            return None
        state: dict[str, Any] = torch.load(self.file(steps[-1]), map_location=map_location, weights_only=True)
        return steps[-1], state
