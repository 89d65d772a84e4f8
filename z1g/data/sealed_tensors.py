"""Safetensors files that are read whole: verified against the record of a job, or against a checksum of their own."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from z1g.core.recorded import checked, damaged
from z1g.core.sealed import Damaged, checksum
from z1g.data.checksums import checksum_of_tensor

CHECKSUM = "checksum"
"""Entry of the file's metadata."""


def read_output(path: Path) -> dict[str, Tensor]:
    """Tensors of a job's output. Raises UserError if it is not as the job wrote it or cannot be read."""
    try:
        return load_file(checked(path))
    except (OSError, SafetensorError) as error:
        raise damaged(path, f"it cannot be read as safetensors: {error}") from error


def save_sealed(tensors: Mapping[str, Tensor], path: Path, owner: str) -> None:
    """Write tensors with a checksum of them and of `owner`, what they belong to. For files that no job records."""
    save_file(dict(tensors), path, metadata={CHECKSUM: _checksum(tensors, owner)})


def load_sealed(path: Path, owner: str) -> dict[str, Tensor]:
    """Inverse of `save_sealed`. Raises OSError, SafetensorError, or Damaged, also for files without a checksum."""
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        recorded = (file.metadata() or {}).get(CHECKSUM)
    if recorded != _checksum(tensors, owner):
        raise Damaged("its tensors do not have its checksum")
    return tensors


def _checksum(tensors: Mapping[str, Tensor], owner: str) -> str:
    return checksum(owner, {name: checksum_of_tensor(tensor) for name, tensor in tensors.items()})
