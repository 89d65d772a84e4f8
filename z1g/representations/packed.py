"""Folders of trained methods with weights in int8 (`z1g.networks.int8`), for models that travel."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from z1g.networks.int8 import SUFFIX, save_quantized
from z1g.representations import folder as method_folder

Convert = Callable[[Path, Path], object]
"""Writes the tensors of the first file to the second one."""


def pack(folder: Path, out: Path) -> None:
    """Write the folder of a trained method with quantized weights to `out`, which must not exist."""
    setup = method_folder.read(folder)
    _copy(folder, out, save_quantized)
    method_folder.write(out, *setup)


def copy(folder: Path, out: Path) -> None:
    """Write the same folder with its weights as they are."""
    setup = method_folder.read(folder)
    _copy(folder, out, shutil.copyfile)
    method_folder.write(out, *setup)


def _copy(folder: Path, out: Path, convert: Convert) -> None:
    """Copy a folder's files; those with weights are converted."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        target = out / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == SUFFIX:
            convert(file, target)
        elif file.name != method_folder.FILE and file.suffix == ".json":
            shutil.copyfile(file, target)
