"""Tensors computed once per object, stored in shards, and read into memory."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from z1g.core.files import atomic_file, read_json, write_json
from z1g.core.locks import waiting
from z1g.core.progress import Meter
from z1g.core.sealed import Damaged, checksum
from z1g.data.sealed_tensors import load_sealed, save_sealed

KEY = "key.json"
SHARD = 1024
"""Objects per file."""
BATCH = 8
"""Objects per call of `make`."""
log = logging.getLogger("z1g")
Make = Callable[[Sequence[str]], dict[str, Tensor]]


def remembered(folder: Path, key: Mapping[str, Any], ids: Sequence[str], make: Make) -> dict[str, Tensor]:
    """Tensors [N,...] by name for the objects `ids`, read from the folder's shards; missing shards are computed.

    `make` computes the tensors [B,...] of B objects. `key` is everything that the tensors depend on. Shards of another
    key and damaged shards are recomputed, with a warning. Other processes wait for the lock of the folder.
    """
    key = {**key, "ids": list(ids)}
    with waiting(folder.parent / f".{folder.name}.lock"):
        _discard_others(folder, key)
        shards = [ids[first : first + SHARD] for first in range(0, len(ids), SHARD)]
        with Meter(folder.name, len(ids), quiet_s=5.0) as meter:
            owner = checksum(key)
            parts = [
                _shard(folder / f"shard-{i:05d}.safetensors", f"{owner}/{i}", shard, make, meter)
                for i, shard in enumerate(shards)
            ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def damaged_shards(folder: Path) -> list[str]:
    """Shards in the folder that are not as `remembered` wrote them, with reasons; none if there is no such folder."""
    if not folder.is_dir():
        return []
    try:
        owner = checksum(read_json(folder / KEY))
    except (OSError, ValueError) as error:
        return [f"{folder / KEY} cannot be read: {error}"]
    problems = []
    for file in sorted(folder.glob("shard-*.safetensors")):
        # One that is lost in between is made again, and is no damage of those after it.
        number = file.stem.removeprefix("shard-").lstrip("0") or "0"
        try:
            load_sealed(file, f"{owner}/{number}")
        except (OSError, SafetensorError, Damaged) as error:
            problems.append(f"{file} is damaged: {error}")
    return problems


def stamp(path: Path) -> list[int]:
    """Size and modification time of a file, to detect changes."""
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]


def _discard_others(folder: Path, key: dict[str, Any]) -> None:
    file = folder / KEY
    try:
        stored = read_json(file) if file.is_file() else None
    except (OSError, ValueError):
        stored = {}
    if stored == key:
        return
    if isinstance(stored, dict):
        different = sorted(name for name in key.keys() | stored.keys() if key.get(name) != stored.get(name))
        log.warning("%s was computed with another %s and is recomputed", folder, ", ".join(different))
    shutil.rmtree(folder, ignore_errors=True)
    write_json(file, key)


def _shard(file: Path, owner: str, ids: Sequence[str], make: Make, meter: Meter) -> dict[str, Tensor]:
    """owner: what the shard's checksum covers besides its tensors."""
    if file.is_file():
        try:
            stored = load_sealed(file, owner)
        except (OSError, SafetensorError, Damaged) as error:
            log.warning("%s cannot be read (%s) and is recomputed", file, str(error).split("\n")[0])
        else:
            meter.advance(len(ids))
            return stored
    parts = []
    for first in range(0, len(ids), BATCH):
        batch = ids[first : first + BATCH]
        parts.append(make(batch))
        meter.advance(len(batch))
    tensors = {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]}
    with atomic_file(file) as temporary:
        save_sealed(tensors, temporary, owner)
    return tensors
