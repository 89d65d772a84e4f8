"""Training in little GPU memory beside training in all of it: equal seeds and data, losses step by step."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from z1g.bench.machine import device_name, guarded, synchronize, versions
from z1g.bench.made_up_training import Make, changed, making, training, with_random_weights
from z1g.bench.memory import allocated, gpu
from z1g.core.device import limit_gpu_memory
from z1g.core.files import write_json, write_text
from z1g.networks.finetune import Lora
from z1g.plan.cost.memory import GB

if TYPE_CHECKING:
    from z1g.config.tree import Experiment

NO_LIMIT = 100_000


@dataclass(frozen=True)
class Run:
    """A training run: of a stage, with Adam's moments in a form, and with adapters or all weights, in so many GB.

    gb: None is all memory of the GPU.
    """

    stage: str
    state: str
    adapters: bool
    gb: int | None

    def __str__(self) -> str:
        words = [{"autodecoder": "stage 1", "unet": "stage 2"}[self.stage]]
        words += ["adapters"] * self.adapters + ["8 bits"] * (self.state == "int8")
        return " ".join([*words, f"in {self.gb} GB" if self.gb is not None else "unrestricted"])

    @property
    def unrestricted(self) -> Run:
        """The run that this one is compared with."""
        return Run(self.stage, self.state, self.adapters, None)


RUNS = (
    Run("unet", "float32", False, 24),
    Run("autodecoder", "float32", False, 24),
    Run("unet", "float32", True, 16),
    Run("unet", "int8", False, 16),
)
"""What has to fit: full-size training in 24 GB, adapters and 8-bit moments in 16 GB."""


def measure(
    experiment: Experiment, steps: int, seconds: float, out: Path | None, runs: Sequence[Run] = RUNS
) -> dict[str, Any]:
    """Losses of each run and of the same one without a limit, what they did to fit, and how far they are apart.

    No run starts after `seconds`. out: folder for `losses.csv`, a column for each run, and `runs.json`, written after
    each run. Raises UserError without a GPU.
    """
    device, began = gpu(), time.perf_counter()
    config, made = with_random_weights(experiment), dict[str, Make]()
    figures: dict[str, Any] = {"device": device_name(device.type), "versions": versions(), "steps": steps, "runs": []}
    losses: dict[str, list[float]] = {}
    for run in dict.fromkeys(run for pair in runs for run in (pair.unrestricted, pair)):
        if time.perf_counter() - began > seconds:
            figures["runs"].append({"name": str(run), "error": "no time left; raise --seconds"})
            continue
        if run.stage not in made:
            made[run.stage] = making(config, run.stage)
        row = guarded(str(run), partial(_run, config, run, made[run.stage], steps, device), device)
        losses[str(run)] = row.pop("losses", [])
        figures["runs"].append(row | _apart(losses, run))
        if out is not None:
            write_text(out / "losses.csv", table(losses))
            write_json(out / "runs.json", figures)
    return figures


def _run(config: Experiment, run: Run, make: Make, steps: int, device: torch.device) -> dict[str, Any]:
    """Train and return the losses of every step, and what the run did with its memory."""
    options = getattr(config, run.stage).train
    train = options.model_copy(update={"optimizer": options.optimizer.model_copy(update={"state": run.state})})
    own = changed(config, run.stage, train, **({"finetune": Lora()} if run.adapters else {}))
    with _limited(run.gb), training(own, run.stage, make, steps) as (trainer, batches):
        losses, began = [], time.perf_counter()
        for step, batch in enumerate(batches):
            losses.append(trainer._step(step, batch).read()["loss"])
            if step == steps // 2:
                synchronize(device)
                began = time.perf_counter()
        synchronize(device)
        seconds = (time.perf_counter() - began) / max(1, steps - steps // 2 - 1)
        objects, recomputed = trainer.passes.micro_batch or train.batch_size, trainer.fitted.recomputes
    tensors, reserved = allocated(device)
    return {
        "limit_gb": run.gb, "objects_at_once": objects, "recomputed": recomputed, "gb": round(tensors / GB, 3),
        "reserved_gb": round(reserved / GB, 3), "step_s": round(seconds, 4), "losses": losses,
    }  # fmt: skip


@contextmanager
def _limited(gb: int | None) -> Iterator[None]:
    limit_gpu_memory(NO_LIMIT if gb is None else gb)
    try:
        yield
    finally:
        limit_gpu_memory(NO_LIMIT)


def _apart(losses: dict[str, list[float]], run: Run) -> dict[str, Any]:
    """First and last loss, and the largest difference from the unrestricted run as a part of its loss at that step."""
    own, other = losses[str(run)], losses.get(str(run.unrestricted), [])
    if not own:
        return {}
    figures: dict[str, Any] = {"first_loss": own[0], "last_loss": own[-1]}
    if run.gb is not None and len(other) == len(own):
        figures["largest_difference"] = max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(own, other, strict=True))
    return figures


def table(losses: dict[str, list[float]]) -> str:
    """Losses by step as CSV, a column for each run."""
    columns = {name: values for name, values in losses.items() if values}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["step", *columns])
    for step, row in enumerate(zip(*columns.values(), strict=True)):
        writer.writerow([step, *(f"{value:.6g}" for value in row)])
    return stream.getvalue()


def markdown(figures: dict[str, Any]) -> str:
    """The runs as a table; runs that failed below it."""
    head = (
        "| run | objects at once | recomputed | GB | reserved, GB | s a step | loss: first, last | largest difference |"
    )
    lines, failed = [head, "|---" * (head.count("|") - 1) + "|"], []
    for row in figures["runs"]:
        if "error" in row:
            failed.append(f"{row['name']}: {row['error']}")
            continue
        apart = f"{row['largest_difference']:.2e}" if "largest_difference" in row else ""
        cells = [row["name"], f"{row['objects_at_once']}", "yes" if row["recomputed"] else "no", f"{row['gb']:.2f}"]
        cells += [
            f"{row['reserved_gb']:.2f}",
            f"{row['step_s']:.3f}",
            f"{row['first_loss']:.4g}, {row['last_loss']:.4g}",
        ]
        lines.append(f"| {' | '.join([*cells, apart])} |")
    return "\n".join([f"{figures['device']}, {figures['steps']} steps", "", *lines, "", *failed]) + "\n"
