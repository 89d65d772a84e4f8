"""The training loop: accelerate, checkpoints, logs, and what happens when a loss is not a number."""

import logging
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from z1g.errors import Preempted, UserError
from z1g.files import exclusive
from z1g.progress import Meter
from z1g.training.checkpoint import CheckpointFolder
from z1g.training.data import Batch, StepData, micro_batches
from z1g.training.log import TrainingLog
from z1g.training.options import TrainOptions

log = logging.getLogger("z1g")
MAX_SKIPPED = 10
"""Steps in a row whose loss or gradient is not finite before training gives up."""


class Objective(nn.Module):
    """What is trained. `forward(batch)` returns `loss` and named terms, all scalars, so that DDP sees every step."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of one batch: {"loss": to be minimised, name: term for the log, ...}."""
        raise NotImplementedError

    def after_backward(self, accelerator: Accelerator) -> None:
        """Called once a step with gradients in place, for state that this module updates itself."""

    def validate(self) -> dict[str, float]:
        """Figures on held-out views; called on the main process only."""
        return {}

    def pictures(self) -> dict[str, Tensor]:
        """Pictures [3,H,W] in 0..1 for the log."""
        return {}


class Average:
    """Exponential moving average of trained weights."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.values = [p.detach().clone() for p in parameters]

    def update(self, parameters: list[nn.Parameter]) -> None:
        """Move the average by one step."""
        torch._foreach_lerp_(self.values, [p.detach() for p in parameters], 1 - self.decay)

    def copy_to(self, parameters: list[nn.Parameter]) -> None:
        """Replace the weights by their average."""
        with torch.no_grad():
            for parameter, value in zip(parameters, self.values, strict=True):
                parameter.copy_(value)


class Trainer:
    """Trains an objective in place up to the step budget, resuming from the folder's newest checkpoint."""

    def __init__(self, objective: Objective, data: StepData, options: TrainOptions, folder: Path) -> None:
        self.options, self.data, self.folder = options, data, folder
        self.accelerator = Accelerator(mixed_precision=_precision(options))
        world = self.accelerator.num_processes
        if options.batch_size % world:
            raise UserError(f"train.batch_size {options.batch_size} does not divide over {world} processes")
        self.objective = objective
        self.trained = [p for p in objective.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(
            self.trained,
            lr=options.optimiser.lr,
            weight_decay=options.optimiser.weight_decay,
            betas=options.optimiser.betas,
            fused=True,
        )
        self.schedule = options.schedule.build(optimiser, options.steps)
        self.model, self.optimiser = self.accelerator.prepare(objective, optimiser)
        self.average = Average(self.trained, options.ema) if options.ema else None
        self.checkpoints = CheckpointFolder(folder / "checkpoints")
        self.skipped = 0

    def run(self) -> None:
        """Train. Raises Preempted after a SIGTERM, UserError where the loss stays non-finite."""
        with exclusive(self.folder / ".lock") if self.accelerator.is_main_process else nullcontext():
            start, history = self._restore()
            self._train(start, TrainingLog(self.folder, history, start, self.accelerator.is_main_process))
            if self.average is not None:
                self.average.copy_to(self.trained)

    def _train(self, start: int, journal: TrainingLog) -> None:
        options, accelerator = self.options, self.accelerator
        loader = self.data.batches(
            start, options.steps, accelerator.process_index, accelerator.num_processes, options.workers
        )
        self.objective.train()
        with _sigterm_flag() as stop, Meter(self.folder.parent.name, options.steps, start) as meter:
            for step, batch in enumerate(loader, start):
                losses = self._step(step, batch)
                journal.add(step, losses)
                done = step + 1
                if done % options.log_every == 0 or done == options.steps:
                    self._end_interval(step, journal)
                if done % options.validate_every == 0 or done == options.steps:
                    self._validate(step, journal)
                meter.advance(loss=losses.get("loss", math.nan))
                # Ranks hear of a SIGTERM at different times, but must leave the loop together.
                stopping = not self._all_ranks(not stop.is_set())
                if done % options.checkpoint_every == 0 or done == options.steps or stopping:
                    self._save(done, journal)
                if stopping:
                    # Whoever started the ranks may end them all when the first leaves.
                    accelerator.wait_for_everyone()
                    raise Preempted(f"stopped after step {done} on request; the same command goes on from there")
        journal.close()

    def _step(self, step: int, batch: Batch) -> dict[str, float]:
        # Layers that draw on their own (dropout) must not depend on what ran before this step.
        torch.manual_seed(self.options.seed * 1_000_003 + step)
        device = self.accelerator.device
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        totals: dict[str, float] = {}
        pieces = list(micro_batches(batch, self.options.micro_batch))
        for i, (piece, share) in enumerate(pieces):
            last = i == len(pieces) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model), self.accelerator.autocast():
                losses = self.model(piece)
            self.accelerator.backward(losses["loss"] * share)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + share * float(value.detach())
        self.objective.after_backward(self.accelerator)
        norm = float(self.accelerator.clip_grad_norm_(self.trained, self.options.optimiser.clip_norm))
        totals["gradient_norm"] = norm
        updated = self._update(step, math.isfinite(totals["loss"]) and math.isfinite(norm))
        return totals if updated else {}

    def _update(self, step: int, finite: bool) -> bool:
        everywhere = self._all_ranks(finite)
        if everywhere:
            self.optimiser.step()
            self.skipped = 0
            if self.average is not None:
                self.average.update(self.trained)
        else:
            self.skipped += 1
            log.warning("step %d skipped: the loss or its gradient is not finite", step)
        self.optimiser.zero_grad(set_to_none=True)
        if not self.options.schedule.follows_loss:
            self.schedule.step()
        if self.skipped >= MAX_SKIPPED:
            steps = self.checkpoints.steps()
            kept = str(self.checkpoints.file(steps[-1])) if steps else "none was written yet"
            raise UserError(
                f"{MAX_SKIPPED} steps in a row up to step {step} had a loss or gradient that is not finite; "
                f"last good checkpoint: {kept}; lower train.optimiser.lr or use train.precision: fp32"
            )
        return everywhere

    def _all_ranks(self, finite: bool) -> bool:
        if self.accelerator.num_processes == 1:
            return finite
        flag = torch.tensor(float(finite), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") == self.accelerator.num_processes)

    def _end_interval(self, step: int, journal: TrainingLog) -> None:
        means = self._over_ranks(journal.means())
        if self.options.schedule.follows_loss:
            self.schedule.step(means.get("loss", math.inf))  # type: ignore[arg-type]  # a plateau takes the metric
        journal.write(step, {**means, "lr": self.optimiser.param_groups[0]["lr"]})

    def _over_ranks(self, means: dict[str, float]) -> dict[str, float]:
        """Mean over ranks. All ranks have the same names, because they skip steps together."""
        if self.accelerator.num_processes == 1 or not means:
            return means
        values = torch.tensor(list(means.values()), device=self.accelerator.device)
        return dict(zip(means, self.accelerator.reduce(values, "mean").tolist(), strict=True))

    def _validate(self, step: int, journal: TrainingLog) -> None:
        if self.accelerator.is_main_process:
            self.objective.eval()
            with torch.no_grad():
                journal.validation(step, self.objective.validate(), self.objective.pictures())
            self.objective.train()
        self.accelerator.wait_for_everyone()

    def _save(self, done: int, journal: TrainingLog) -> None:
        if not self.accelerator.is_main_process:
            return
        state: dict[str, Any] = {
            "objective": self._own_state(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.values,
            "history": journal.rows,
            "interval": journal.open_interval,
            "skipped": self.skipped,
        }
        self.checkpoints.save(done, state)
        journal.flush()

    def _own_state(self) -> dict[str, Any]:
        """Trained weights and extra state; frozen weights are rebuilt from the configuration."""
        trained = {name for name, p in self.objective.named_parameters() if p.requires_grad}
        state = self.objective.state_dict()
        return {name: v for name, v in state.items() if name in trained or name.endswith("_extra_state")}

    def _restore(self) -> tuple[int, dict[str, Any]]:
        found = self.checkpoints.load()
        if found is None:
            return 0, {"rows": [], "interval": []}
        step, state = found
        self.objective.load_state_dict(state["objective"], strict=False)
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.values = [v.to(self.accelerator.device) for v in state["average"]]
        self.skipped = state["skipped"]
        log.info("resumed %s from step %d", self.folder, step)
        return step, {"rows": state["history"], "interval": state["interval"]}


def _precision(options: TrainOptions) -> str:
    if options.precision == "auto":
        return "bf16" if torch.cuda.is_available() else "no"
    return {"fp32": "no", "bf16": "bf16"}[options.precision]


@contextmanager
def _sigterm_flag() -> Iterator[threading.Event]:
    """An event that SIGTERM sets while the block runs; outside the main thread it is never set."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)
