"""Stages run directly, without job records, and training that is interrupted."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from support.builders import stage_path
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.training.loop import Trainer


def run_stages(planned: Plan, *stages: Any) -> None:
    """Run stages of the ablation `micro` with all their chunks."""
    for stage in stages:
        name = stage.__name__.split(".")[-1]
        folder = StageFolder.open(stage_path(planned, name))
        if name in ("fit", "infer"):
            for chunk in range(planned.ablations["micro"].stages[name].n_chunks):
                stage.run(folder, chunk=chunk, threads=1)
        else:
            stage.run(folder, threads=1)


@contextmanager
def interrupted(*, before: int | None = None, after: int | None = None) -> Iterator[None]:
    """Training in this block must be interrupted before or after the computation of a step."""
    real = Trainer._step

    def step(self: Trainer, at: int, batch: Any) -> dict[str, float]:
        if at == before:
            raise KeyboardInterrupt
        losses = real(self, at, batch)
        if at == after:
            raise KeyboardInterrupt
        return losses

    with mock.patch.object(Trainer, "_step", step), pytest.raises(KeyboardInterrupt):
        yield
