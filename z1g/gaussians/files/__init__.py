"""Files of Gaussians that other tools read, by the ending of their name.

Whatever the file's own axes are, Gaussians come out of `read` and go into `write` in z1g's y-up world, activated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.files import atomic_file
from z1g.gaussians import ply
from z1g.gaussians.channels import CHANNELS, MIN_ALPHA, N_CHANNELS
from z1g.gaussians.files import splat, spz


@dataclass(frozen=True)
class Format:
    """How one kind of file is read and written, and whether it keeps each Gaussian where it was in the list."""

    read: Callable[[Path], Tensor]
    write: Callable[[Path, Tensor], None]
    keeps_all: bool = False


FORMATS: dict[str, Format] = {
    ".ply": Format(lambda path: ply.read(path, np.eye(4)), lambda path, x: ply.write(path, x, np.eye(4)), True),
    ".splat": Format(splat.read, splat.write),
    ".spz": Format(spz.read, spz.write),
}


def read(path: Path) -> Tensor:
    """Activated Gaussians [N,14], float32, y-up world, quaternions of length 1.

    Raises UserError where the file is missing, of another kind, cut short, empty or holds numbers that cannot be drawn.
    """
    form = format_of(path, FORMATS)
    try:
        with np.errstate(over="ignore"):  # what overflows is said below
            gaussians = form.read(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if not len(gaussians):
        raise UserError(f"{path} holds no Gaussians")
    bad = int((~torch.isfinite(gaussians).all(dim=1)).sum())
    if bad:
        raise UserError(f"{path}: {bad} of {len(gaussians)} Gaussians hold numbers that are not finite")
    # Other tools store quaternions of any length; what has none is taken as unrotated.
    turn = gaussians[:, CHANNELS["rotation"]]
    length = turn.norm(dim=1, keepdim=True)
    upright = torch.tensor([1.0, 0, 0, 0]).expand_as(turn)
    gaussians[:, CHANNELS["rotation"]] = torch.where(length > 0, turn / length, upright)
    return gaussians


def write(path: Path, gaussians: Tensor) -> None:
    """Write activated Gaussians [N,14] of the y-up world; the ending of `path` says how.

    `.ply` keeps all of them in their order, so that the source view of each is known; others only what can be seen.
    Raises UserError for another ending, or where nothing can be seen.
    """
    form = format_of(path, FORMATS)
    gaussians = gaussians.detach().cpu()
    if not form.keeps_all:
        gaussians = visible(gaussians)
        if not len(gaussians):
            raise UserError(f"{path} is not written: no Gaussian has an opacity of 1/255 or more")
    with atomic_file(path) as temporary:
        form.write(temporary, gaussians)


def visible(gaussians: Tensor) -> Tensor:
    """Those Gaussians [M,14] of [N,14] that a rasterizer draws: less than half of a splatter image."""
    if gaussians.shape[1] != N_CHANNELS:
        raise ValueError(f"Gaussians have {N_CHANNELS} channels, not {gaussians.shape[1]}")
    return gaussians[gaussians[:, CHANNELS["opacity"].start] >= MIN_ALPHA]


def format_of(path: Path, known: dict[str, Format]) -> Format:
    """The format that a file's name asks for. Raises UserError naming the ones there are."""
    form = known.get(path.suffix.lower())
    if form is None:
        raise UserError(f'{path}: unknown ending "{path.suffix}"; splats are {listed(list(known))} files')
    return form


def listed(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
