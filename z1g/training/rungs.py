"""Rungs of successive halving (Jamieson & Talwalkar 2016): training stops at a fraction of its steps and is measured.

A rung is reached with the learning rates of the whole run and ends with a checkpoint, so that training that goes on has
the results of a run that never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from z1g.core.files import write_json

DIVERGED = "diverged.json"
"""File in the folder of training that diverged, {"reason"}; a search then goes on without its point."""
FOLDER = "rungs"
"""Folder of the measured rungs in a stage's folder."""


@dataclass(frozen=True)
class Figure:
    """A figure by which runs are compared at a rung."""

    label: str
    unit: str
    higher_is_better: bool


FIGURES = {
    "validation_psnr": Figure("validation PSNR", "dB", higher_is_better=True),
    "held_out_psnr": Figure("PSNR of held-out objects", "dB", higher_is_better=True),
}
"""Figures of validation with a direction."""


@dataclass(frozen=True)
class Pause:
    """Where training stops before its end: after `step` steps. `measure` returns figures of the averaged weights."""

    step: int
    measure: Callable[[], Mapping[str, float]]


def rung_name(fraction: float) -> str:
    """A rung in file names and in tables, for example 0.1."""
    return f"{fraction:g}"


def rung_step(fraction: float, steps: int) -> int:
    """The step at which a fraction of all steps is done, rounded up."""
    return math.ceil(Fraction(rung_name(fraction)) * steps)


def rung_file(folder: Path, fraction: float) -> Path:
    """File of a rung in a stage's folder, see `write_rung`."""
    return folder / FOLDER / f"{rung_name(fraction)}.json"


def write_rung(folder: Path, fraction: float, steps: int, figures: Mapping[str, float] | None) -> None:
    """Write the figures at a rung, {"rung", "step", "steps", "figures"}; None if training diverged before it.

    Figures that are not finite become null.
    """
    finite = {name: value if math.isfinite(value) else None for name, value in (figures or {}).items()}
    record = {"rung": fraction, "step": rung_step(fraction, steps), "steps": steps}
    write_json(rung_file(folder, fraction), {**record, "figures": None if figures is None else finite})


@contextmanager
def noted(file: Path, error: type[Exception], active: bool) -> Iterator[None]:
    """Write the message of an error of the block to a file, which otherwise does not exist afterwards."""
    if active:
        file.unlink(missing_ok=True)
    try:
        yield
    except error as raised:
        if active:
            write_json(file, {"reason": str(raised)})
        raise
