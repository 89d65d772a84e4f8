"""File formats of Gaussians, by file extension.

`read` returns and `write` takes activated Gaussians in z1g's y-up world, whatever axes the format uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.files import atomic_file, require_regular
from z1g.core.recorded import checked_output
from z1g.gaussians import ply
from z1g.gaussians.channels import CHANNELS, MIN_ALPHA, N_CHANNELS
from z1g.gaussians.files import splat, spz
from z1g.gaussians.finite import require_finite


@dataclass(frozen=True)
class Format:
    """Reader and writer of a format, and whether it keeps all Gaussians in their order."""

    read: Callable[[Path], Tensor]
    write: Callable[[Path, Tensor], None]
    keeps_all: bool = False


FORMATS: dict[str, Format] = {
    ".ply": Format(lambda path: ply.read(path, np.eye(4)), lambda path, x: ply.write(path, x, np.eye(4)), True),
    ".splat": Format(splat.read, splat.write),
    ".spz": Format(spz.read, spz.write),
}


def read(path: Path) -> Tensor:
    """Read activated Gaussians [N,14], float32, y-up world, with unit quaternions.

    Raises UserError if the file is missing, not a regular file, of another format, truncated, empty or contains
    non-finite numbers, or if it differs from the record of the job or command that made it.
    """
    form = format_of(path, FORMATS)
    try:
        with np.errstate(over="ignore"):  # reported below as not finite
            require_regular(path)
            gaussians = form.read(checked_output(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if not len(gaussians):
        raise UserError(f"{path} contains no Gaussians")
    require_finite(gaussians, str(path))
    # Other tools store quaternions of any length; a zero quaternion counts as the identity.
    rotation = gaussians[:, CHANNELS["rotation"]]
    length = rotation.norm(dim=1, keepdim=True)
    identity = torch.tensor([1.0, 0, 0, 0]).expand_as(rotation)
    gaussians[:, CHANNELS["rotation"]] = torch.where(length > 0, rotation / length, identity)
    return gaussians


def write(path: Path, gaussians: Tensor) -> None:
    """Write activated Gaussians [N,14] of the y-up world; the extension of `path` selects the format.

    `.ply` keeps all of them in their order, so that the source view of each is known; other formats keep only visible
    ones. Raises UserError for an unknown extension, if numbers are not finite, or if no Gaussian is visible.
    """
    form = format_of(path, FORMATS)
    gaussians = gaussians.detach().cpu()
    require_finite(gaussians, f"{path} is not written")
    if not form.keeps_all:
        gaussians = visible(gaussians)
        if not len(gaussians):
            raise UserError(f"{path} is not written: no Gaussian has an opacity of 1/255 or more")
    with atomic_file(path) as temporary:
        form.write(temporary, gaussians)


def visible(gaussians: Tensor) -> Tensor:
    """The Gaussians [M,14] of [N,14] that a rasterizer draws, less than half of a splatter image."""
    if gaussians.shape[1] != N_CHANNELS:
        raise ValueError(f"Gaussians have {N_CHANNELS} channels, not {gaussians.shape[1]}")
    return gaussians[gaussians[:, CHANNELS["opacity"].start] >= MIN_ALPHA]


def format_of(path: Path, formats: dict[str, Format]) -> Format:
    """The format of a file by its extension. Raises UserError that lists the available formats."""
    form = formats.get(path.suffix.lower())
    if form is None:
        raise UserError(f'{path}: unknown extension "{path.suffix}"; splats are {listed(list(formats))} files')
    return form


def listed(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
