"""Logs of a training run: history rows and TensorBoard events."""

import time
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from z1g.core.files import write_jsonl


class TrainingLog:
    """Collects figures by step. Its rows are part of the checkpoint, so that a resumed run has a complete history."""

    def __init__(self, folder: Path, restored: dict[str, Any], start: int, active: bool) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = restored["rows"]
        self.open_interval: list[dict[str, float]] = restored["interval"]
        self._seconds = self.rows[-1]["seconds"] if self.rows else 0.0
        self._clock = time.monotonic()
        self._writer = SummaryWriter(str(folder / "tb"), purge_step=start) if active else None

    def add(self, losses: dict[str, float]) -> None:
        """Record the losses of one step; empty if it was skipped."""
        self.open_interval.append(losses)

    def means(self) -> dict[str, float]:
        """Means over the steps of the current interval. Starts a new interval."""
        names = {name for losses in self.open_interval for name in losses}
        means = {}
        for name in sorted(names):
            values = [losses[name] for losses in self.open_interval if name in losses]
            means[name] = sum(values) / len(values)
        self.open_interval = []
        return means

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Write one row of history and one TensorBoard point per figure."""
        now = time.monotonic()
        self._seconds += now - self._clock
        self._clock = now
        self.rows.append({"step": step + 1, **figures, "seconds": round(self._seconds, 3)})
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(f"train/{name}", value, step + 1)

    def validation(
        self, step: int, figures: dict[str, float], images: dict[str, Tensor], histograms: dict[str, Tensor]
    ) -> None:  # fmt: skip
        """Add validation figures to the newest row; write images and histograms to TensorBoard."""
        if self.rows and self.rows[-1]["step"] == step + 1:
            self.rows[-1].update(figures)
        elif figures:
            self.rows.append({"step": step + 1, **figures, "seconds": round(self._seconds, 3)})
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(f"validation/{name}", value, step + 1)
            for name, image in images.items():
                self._writer.add_image(name, image, step + 1)
            for name, values in histograms.items():
                self._writer.add_histogram(name, values.float().cpu(), step + 1)

    def flush(self) -> None:
        """Write all events to disk."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write all events to disk, and write no more."""
        if self._writer is not None:
            self._writer.close()

    def publish(self) -> None:
        """Close the log of a finished run, and write `history.jsonl`."""
        self.close()
        if self._writer is not None:
            write_jsonl(self.folder / "history.jsonl", self.rows)
