"""File formats of Gaussians, by file extension.

`read` returns and `write` takes activated Gaussians in z1g's y-up world, whatever axes the format uses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
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
    """Reader and writer of a format, and whether it keeps all Gaussians in their order.

    read_harmonics: also reads harmonics above degree 0, if the format has them. axes: [3,3], from the y-up world to the
    format's axes.
    """

    read: Callable[[Path], Tensor]
    write: Callable[[Path, Tensor], None]
    keeps_all: bool = False
    read_harmonics: Callable[[Path], tuple[Tensor, Tensor | None]] | None = None
    axes: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))


@dataclass(frozen=True)
class Colored:
    """Activated Gaussians [N,14] of the y-up world, and colors that depend on the direction of view.

    harmonics: [N,K,3] above degree 0, or None; they are in the axes of the file, to which `axes` [3,3] turns the world.
    """

    gaussians: Tensor
    harmonics: Tensor | None
    axes: NDArray[np.float64]


ROUNDING = 1e-6
"""Largest difference from 1 of the length of a quaternion that was normalized in float32."""
Y_DOWN = ply.Y_UP_TO_Y_DOWN[:3, :3]
FORMATS: dict[str, Format] = {
    ".ply": Format(
        lambda path: ply.read(path, np.eye(4)), lambda path, x: ply.write(path, x, np.eye(4)), True,
        lambda path: ply.read_harmonics(path, np.eye(4)), Y_DOWN,
    ),
    ".splat": Format(splat.read, splat.write, axes=Y_DOWN),
    ".spz": Format(spz.read, spz.write, read_harmonics=spz.read_harmonics),
}  # fmt: skip


def read(path: Path) -> Tensor:
    """Read activated Gaussians [N,14], float32, y-up world, with unit quaternions.

    Raises UserError if the file is missing, not a regular file, of another format, truncated, empty or contains
    non-finite numbers, or if it differs from the record of the job or command that made it.
    """
    form = format_of(path, FORMATS)
    with _readable(path) as checked:
        gaussians = form.read(checked)
    return _usable(gaussians, path)


def read_colored(path: Path) -> Colored:
    """Like `read`, with the harmonics above degree 0, if the file has any."""
    form = format_of(path, FORMATS)
    harmonics: Tensor | None = None
    with _readable(path) as checked:
        if form.read_harmonics is None:
            gaussians = form.read(checked)
        else:
            gaussians, harmonics = form.read_harmonics(checked)
    if harmonics is not None and not harmonics.isfinite().all():
        raise UserError(f"{path}: its spherical harmonics contain numbers that are not finite")
    return Colored(_usable(gaussians, path), harmonics, form.axes)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[Path]:
    """The path of a regular file that is as it was recorded. Raises UserError."""
    try:
        with np.errstate(over="ignore"):  # reported later as not finite
            require_regular(path)
            yield checked_output(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _usable(gaussians: Tensor, path: Path) -> Tensor:
    """The same with unit quaternions. Raises UserError if there are none, or if they are not finite."""
    if not len(gaussians):
        raise UserError(f"{path} contains no Gaussians")
    require_finite(gaussians, str(path))
    # Other tools store quaternions of any length, whose squares float32 may not hold. Those that are unit quaternions
    # but for rounding stay as they are, so that a file that is read and written again is the same.
    rotation = _rotations(gaussians).double()
    length = rotation.norm(dim=1, keepdim=True)
    unit = torch.where((length - 1).abs() <= ROUNDING, rotation, rotation / length)
    gaussians[:, CHANNELS["rotation"]] = unit.float()
    return gaussians


def _rotations(gaussians: Tensor) -> Tensor:
    """Quaternions [N,4] of Gaussians [N,14]; a zero quaternion counts as the identity."""
    rotation = gaussians[:, CHANNELS["rotation"]]
    return torch.where(rotation.any(dim=1, keepdim=True), rotation, rotation.new_tensor([1.0, 0, 0, 0]))


def write(path: Path, gaussians: Tensor) -> None:
    """Write activated Gaussians [N,14] of the y-up world; the extension of `path` selects the format.

    `.ply` keeps all of them in their order, so that the source view of each is known; other formats keep only visible
    ones. Raises UserError for an unknown extension, if numbers are not finite in float32, or if there is no Gaussian
    that is kept.
    """
    form = format_of(path, FORMATS)
    gaussians = gaussians.detach().cpu().clone()
    require_finite(gaussians.float(), f"{path} is not written")
    if not len(gaussians):
        raise UserError(f"{path} is not written: there are no Gaussians")
    gaussians[:, CHANNELS["rotation"]] = _rotations(gaussians)
    if not form.keeps_all:
        gaussians = visible(gaussians)
        if not len(gaussians):
            raise UserError(f"{path} is not written: no Gaussian has an opacity of 1/255 or more")
    with atomic_file(path) as temporary:
        try:
            form.write(temporary, gaussians)
        except UserError as error:
            raise UserError(f"{path} is not written: {error}") from error


def visible(gaussians: Tensor) -> Tensor:
    """The Gaussians [M,14] of [N,14] that a rasterizer draws, less than half of a splatter image."""
    if gaussians.shape[1] != N_CHANNELS:
        raise ValueError(f"Gaussians have {N_CHANNELS} channels, not {gaussians.shape[1]}")
    return gaussians[gaussians[:, CHANNELS["opacity"].start] >= MIN_ALPHA]


def format_of(path: Path, formats: dict[str, Format], also: str = "") -> Format:
    """The format of a file by its extension. Raises UserError that lists the available formats, and what is `also`."""
    form = formats.get(path.suffix.lower())
    if form is None:
        folder = "; this is a folder: name the files in it" if path.is_dir() else ""
        raise UserError(
            f'{path}: unknown extension "{path.suffix}"; splats are {listed(list(formats))} files{also}{folder}'
        )
    return form


def listed(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
