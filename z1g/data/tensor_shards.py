"""Tensors computed once per object, stored in shards, and read into memory."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from z1g.core.files import atomic_file, read_json, write_json
from z1g.core.locks import waiting
from z1g.core.progress import Meter

SHARD = 1024
"""Objects per file."""
BATCH = 8
"""Objects per call of `make`."""
log = logging.getLogger("z1g")
Make = Callable[[Sequence[str]], dict[str, Tensor]]


def remembered(folder: Path, key: Mapping[str, Any], ids: Sequence[str], make: Make) -> dict[str, Tensor]:
    """Tensors [N,...] by name for the objects `ids`, read from the folder's shards; missing shards are computed.

    `make` computes the tensors [B,...] of B objects. `key` is everything that the tensors depend on. Shards of another
    key and unreadable shards are recomputed, with a warning. Other processes wait for the lock of the folder.
    """
    key = {**key, "ids": list(ids)}
    with waiting(folder.parent / f".{folder.name}.lock"):
        _discard_others(folder, key)
        shards = [ids[first : first + SHARD] for first in range(0, len(ids), SHARD)]
        with Meter(folder.name, len(ids), quiet_s=5.0) as meter:
            parts = [
                _shard(folder / f"shard-{i:05d}.safetensors", shard, make, meter) for i, shard in enumerate(shards)
            ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def stamp(path: Path) -> list[int]:
    """Size and modification time of a file, to detect changes."""
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]


def _discard_others(folder: Path, key: dict[str, Any]) -> None:
    file = folder / "key.json"
    stored = read_json(file) if file.is_file() else None
    if stored == key:
        return
    if stored is not None:
        different = sorted(name for name in key.keys() | stored.keys() if key.get(name) != stored.get(name))
        log.warning("%s was computed with another %s and is recomputed", folder, ", ".join(different))
    shutil.rmtree(folder, ignore_errors=True)
    write_json(file, key)


def _shard(file: Path, ids: Sequence[str], make: Make, meter: Meter) -> dict[str, Tensor]:
    if file.is_file():
        try:
            stored = load_file(file)
        except (OSError, SafetensorError) as error:
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
        save_file(tensors, temporary)
    return tensors
