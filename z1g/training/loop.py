"""The training loop: accelerate, checkpoints, logs, and handling of losses that are not finite."""

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
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from torch import Tensor

from z1g.core.errors import Preempted, UserError
from z1g.core.locks import exclusive
from z1g.core.progress import Meter
from z1g.core.stages import TRAINED
from z1g.training.average import Average
from z1g.training.checkpoint import CheckpointFolder
from z1g.training.compact_adam import CompactAdamW
from z1g.training.data import Batch, StepData, ahead
from z1g.training.log import TrainingLog
from z1g.training.memory import FittedPasses
from z1g.training.objective import Objective
from z1g.training.optimizers import adamw
from z1g.training.options import TrainOptions
from z1g.training.outcome import FINITE, STOP, Outcome, everywhere
from z1g.training.passes import EagerPasses, ReplayedPasses, passes
from z1g.training.remedies import remedies
from z1g.training.rungs import DIVERGED, Pause, noted
from z1g.training.speed import tune

log = logging.getLogger("z1g")
MAX_SKIPPED = 10
"""Consecutive steps with a non-finite loss or gradient after which training fails."""
SAVED = ("objective", "optimizer", "schedule", "average", "history", "interval", "skipped", "best")
"""Entries of a checkpoint."""
BEST_BY = "validation_psnr"
"""The figure of `Objective.validate` that `keep: best` maximizes."""


class Diverged(UserError):
    """The loss or its gradient was not finite in `MAX_SKIPPED` consecutive steps."""


class Trainer:
    """Trains an objective in place up to the step budget, resuming from the folder's newest checkpoint.

    The host never waits for the step it has just started: losses of a step are read while the next step runs.
    """

    def __init__(
        self, objective: Objective, data: StepData, options: TrainOptions, folder: Path, label: str | None = None
    ) -> None:
        """folder: of checkpoints, logs and history. label: of progress; default is the name of the folder above."""
        self.options, self.data, self.folder = options, data, folder
        self.label = label or folder.parent.name
        self.accelerator = Accelerator(mixed_precision=_precision(options))
        world = self.accelerator.num_processes
        if options.batch_size % world:
            raise UserError(f"train.batch_size {options.batch_size} does not divide over {world} processes")
        self.objective = objective
        tune(objective.networks(), options.speed, self.accelerator.device)
        self.trained = [p for p in objective.parameters() if p.requires_grad]
        optimizer = adamw(objective, options.optimizer, options.seed)
        self.schedule = options.schedule.build(optimizer, max(options.steps, 1))
        replay = options.speed.replay and not options.speed.recompute
        self.fitted = FittedPasses(
            passes(objective, self.accelerator, options.micro_batch, replay=replay),
            objective, self.accelerator, recomputes=options.speed.recompute, remedy=self._remedy(),
            scratch=optimizer.scratch if isinstance(optimizer, CompactAdamW) else 0,
        )  # fmt: skip
        self.optimizer = self.accelerator.prepare(optimizer)
        self.average = Average(self.trained, options.ema) if options.ema else None
        self.checkpoints = CheckpointFolder(folder / "checkpoints")
        self.stop = threading.Event()
        self.skipped = 0
        self.best: dict[str, float] = {}
        """Step and figure of the best validation so far; empty before the first."""

    def _remedy(self) -> str:
        options, stage = self.options, self.folder.parent.name
        return remedies(
            stage if stage in TRAINED else "STAGE",
            state=options.optimizer.state, average=options.ema is not None, adapters=self.objective.adaptable,
        )  # fmt: skip

    @property
    def passes(self) -> EagerPasses | ReplayedPasses:
        """The passes of a step, as many objects at once as fit into memory."""
        return self.fitted.passes

    def run(self) -> None:
        """Train. Raises Preempted after a SIGTERM, Diverged if the loss stays non-finite."""
        with exclusive(self.folder / ".lock") if self.accelerator.is_main_process else nullcontext():
            start, history = self._restore()
            journal = TrainingLog(self.folder, history, start, self.accelerator.is_main_process)
            with noted(self.folder / DIVERGED, Diverged, self.accelerator.is_main_process):
                self._train(start, self.options.steps, journal)
            journal.publish()
            if self.average is not None:
                self.average.swap()
            (best,) = broadcast_object_list([self.best])
            if self.options.keep == "best" and best:
                self.checkpoints.load_best_into(self.objective, best["step"], list(self._own_state()))
                log.info("kept the weights of step %d, %.2f dB", best["step"], best["value"])

    def run_to(self, pause: Pause) -> dict[str, float]:
        """Train up to a step, write its checkpoint and return what is measured there; other ranks return {}.

        `run` then continues as if training had not stopped. Raises Preempted and Diverged like `run`, and ValueError if
        the newest checkpoint is beyond the step.
        """
        with exclusive(self.folder / ".lock") if self.accelerator.is_main_process else nullcontext():
            start, history = self._restore()
            if start > pause.step:
                raise ValueError(f"{self.folder}: the checkpoint of step {start} is beyond step {pause.step}")
            journal = TrainingLog(self.folder, history, start, self.accelerator.is_main_process)
            self._train(start, pause.step, journal)
            journal.close()
            figures: dict[str, float] = {}
            if self.accelerator.is_main_process:
                with self._evaluating():
                    figures = dict(pause.measure())
            self.accelerator.wait_for_everyone()
        return figures

    def _train(self, start: int, stop: int, journal: TrainingLog) -> None:
        """Run the steps from `start` to `stop`, and save the checkpoint of the last one."""
        options, accelerator = self.options, self.accelerator
        rank, world = accelerator.process_index, accelerator.num_processes
        loader = iter(self.data.batches(start, stop, rank, world, options.workers))
        late: Outcome | None = None
        self.objective.train()
        meter_of_stage = Meter(self.label, options.steps, start)
        with _sigterm_sets(self.stop), self.fitted.explained(), meter_of_stage as meter:
            for step, batch in enumerate(ahead(loader, accelerator.device.type == "cuda"), start):
                outcome, done = self._step(step, batch), step + 1
                # Ranks receive a SIGTERM at different times, but must leave the loop together.
                heard = self._note(late, journal, meter)
                stopping = self.stop.is_set() if world == 1 else heard
                late = outcome
                last = done == options.steps
                logs, validates, saves = (
                    last or done % every == 0
                    for every in (options.log_every, options.validate_every, options.checkpoint_every)
                )
                if logs or validates or saves or stopping or done == stop:
                    self._note(late, journal, meter)
                    late = None
                if logs:
                    self._end_interval(step, journal)
                if validates:
                    self._validate(step, journal)
                if saves or stopping or done == stop:
                    self._save(done, journal)
                if stopping:
                    # The launcher may terminate all ranks when the first one exits.
                    accelerator.wait_for_everyone()
                    raise Preempted(f"stopped after step {done} on request; run the same command again to resume")

    def _step(self, step: int, batch: Batch) -> Outcome:
        accelerator, device = self.accelerator, self.accelerator.device
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        # Random layers (dropout) must not depend on what ran before this step.
        totals = self.fitted(batch, seed=self.options.seed * 1_000_003 + step)
        self.objective.after_backward(accelerator)
        norm = accelerator.clip_grad_norm_(self.trained, self.options.optimizer.clip_norm)
        totals["gradient_norm"] = norm
        usable = (totals["loss"].isfinite() & norm.isfinite()).float()
        finite = everywhere(accelerator, usable, "all")
        self._update(finite)
        stop = everywhere(accelerator, torch.full_like(usable, float(self.stop.is_set())), "any")
        return Outcome.sent(step, {**totals, FINITE: finite, STOP: stop})

    def _update(self, finite: Tensor) -> None:
        """Step the optimizer if the scalar `finite` is 1; with 0 the weights are unchanged."""
        # The fused kernels read this flag on the device, as with a gradient scaler.
        self.optimizer.optimizer.found_inf = 1 - finite
        self.optimizer.step()
        if self.average is not None:
            self.average.update(finite)
        self.optimizer.zero_grad(set_to_none=True)
        if not self.options.schedule.follows_loss:
            self.schedule.step()

    def _note(self, outcome: Outcome | None, journal: TrainingLog, meter: Meter) -> bool:
        """Log a step; returns whether any rank received a SIGTERM. Raises Diverged after many non-finite steps."""
        if outcome is None:
            return False
        figures = outcome.read()
        finite, stop = figures.pop(FINITE) > 0, figures.pop(STOP) > 0
        journal.add(figures if finite else {})
        meter.advance(further=figures, loss=figures["loss"])
        self.skipped = 0 if finite else self.skipped + 1
        if not finite:
            log.warning("step %d skipped: the loss or its gradient is not finite", outcome.step)
        if self.skipped >= MAX_SKIPPED:
            steps = self.checkpoints.steps()
            checkpoint = str(self.checkpoints.file(steps[-1])) if steps else "none was written yet"
            raise Diverged(
                f"{MAX_SKIPPED} consecutive steps up to step {outcome.step} had a loss or gradient that is not finite; "
                f"last good checkpoint: {checkpoint}; lower train.optimizer.lr or use train.precision: fp32"
            )
        return stop

    def _end_interval(self, step: int, journal: TrainingLog) -> None:
        means = self._over_ranks(journal.means())
        if self.options.schedule.follows_loss:
            self.schedule.step(means.get("loss", math.inf))  # type: ignore[arg-type]  # a plateau takes the metric
        journal.write(step, {**means, "lr": self.optimizer.param_groups[0]["lr"]})

    def _over_ranks(self, means: dict[str, float]) -> dict[str, float]:
        """Means over ranks. All ranks have the same names, because they skip the same steps."""
        if self.accelerator.num_processes == 1 or not means:
            return means
        values = torch.tensor(list(means.values()), device=self.accelerator.device)
        return dict(zip(means, self.accelerator.reduce(values, "mean").tolist(), strict=True))

    def _validate(self, step: int, journal: TrainingLog) -> None:
        if self.accelerator.is_main_process:
            with self._evaluating():
                figures = self.objective.validate()
                journal.validation(step, figures, self.objective.images(), self.objective.histograms())
                if figures.get(BEST_BY, -math.inf) > self.best.get("value", -math.inf):
                    self.best = {"step": step + 1, "value": figures[BEST_BY]}
                    if self.options.keep == "best":
                        self.checkpoints.save_best(step + 1, self._own_state())
        self.accelerator.wait_for_everyone()

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """The averaged weights if there are any, in evaluation mode and without gradients."""
        self.objective.eval()
        with self.average.applied() if self.average is not None else nullcontext(), torch.no_grad():
            yield
        self.objective.train()

    def _save(self, done: int, journal: TrainingLog) -> None:
        if not self.accelerator.is_main_process:
            return
        state: dict[str, Any] = {
            "objective": self._own_state(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.values,
            "history": journal.rows,
            "interval": journal.open_interval,
            "skipped": self.skipped,
            "best": self.best,
        }
        self.checkpoints.save(done, state)
        self.checkpoints.drop_best_but(int(self.best.get("step", 0)))
        journal.flush()

    def _own_state(self) -> dict[str, Any]:
        """Trained weights and extra state; frozen weights are rebuilt from the configuration."""
        trained = {name for name, p in self.objective.named_parameters() if p.requires_grad}
        state = self.objective.state_dict()
        return {name: v for name, v in state.items() if name in trained or name.endswith("_extra_state")}

    def _restore(self) -> tuple[int, dict[str, Any]]:
        latest = self.checkpoints.load()
        if latest is None:
            return 0, {"rows": [], "interval": []}
        step, state = latest
        self.checkpoints.take(self.objective, state, step, list(self._own_state()), SAVED)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.values = [v.to(self.accelerator.device) for v in state["average"]]
        self.skipped, self.best = state["skipped"], state["best"]
        log.info("resumed %s from step %d", self.folder, step)
        return step, {"rows": state["history"], "interval": state["interval"]}


def one_precision_each() -> None:
    """Let trainings of this process that begin later have another precision, which accelerate refuses otherwise."""
    AcceleratorState._reset_state()


def _precision(options: TrainOptions) -> str:
    if options.precision == "auto":
        return "bf16" if torch.cuda.is_available() else "no"
    return {"fp32": "no", "bf16": "bf16"}[options.precision]


@contextmanager
def _sigterm_sets(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM set the event while the block runs; has no effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
