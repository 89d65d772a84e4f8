"""Training up to a rung of successive halving, for both trained stages."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from z1g.training.checkpoint import CheckpointFolder
from z1g.training.data import StepData
from z1g.training.loop import Diverged, Trainer
from z1g.training.objective import Objective
from z1g.training.options import TrainOptions
from z1g.training.rungs import FOLDER, Pause, rung_step, write_rung

log = logging.getLogger("z1g")


def reach(
    fraction: float, folder: Path, objective: Objective, data: StepData, options: TrainOptions,
    measure: Callable[[], dict[str, float]],
) -> None:  # fmt: skip
    """Train to a fraction of the steps, leave a checkpoint, and write `rungs/<fraction>.json` with what is measured.

    A run that diverges before the rung is recorded as such, and the job succeeds: the study goes on without it.
    """
    step = rung_step(fraction, options.steps)
    with _training_folder(folder, step) as place:
        trainer = Trainer(objective, data, options, place)
        figures: dict[str, float] | None
        try:
            figures = trainer.run_to(Pause(step, measure))
        except Diverged as error:
            log.warning("%s", error)
            figures = None
        if trainer.accelerator.is_main_process:
            write_rung(folder, fraction, options.steps, figures)
        trainer.accelerator.wait_for_everyone()


@contextmanager
def _training_folder(folder: Path, step: int) -> Iterator[Path]:
    """Yield the folder in which training reaches a step: the stage's own, unless its checkpoints are beyond the step.

    Then, training is repeated up to the step in a folder beside, which is removed at the end. This happens if a run was
    trained before it became part of a study.
    """
    steps = CheckpointFolder(folder / "checkpoints").steps()
    if not steps or steps[-1] <= step:
        yield folder
        return
    aside = folder / FOLDER / f"repeated-{step}"
    yield aside
    shutil.rmtree(aside, ignore_errors=True)
