"""Conversion of meshes that the rasterizer does not read: by Blender to GLB, once, in the user's cache folder.

A converted file is named by its own digest. A record, named by the content of the mesh, says which file it is and the
digests of the side files that Blender read; the file is used only while all of them agree.
"""

import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.files import atomic_file
from z1g.core.names import counted
from z1g.core.sealed import read_sealed, write_sealed
from z1g.data.manifest import ObjectEntry
from z1g.data.shards import Rejected
from z1g.meshes.executable import CONVERTER, find_blender
from z1g.meshes.files import Unusable, prepare, readable
from z1g.meshes.formats import CONVERTED
from z1g.meshes.index import cache_folder
from z1g.meshes.limits import FileLimits
from z1g.meshes.pool import Drawn, Task, draw
from z1g.meshes.renderers import Blender
from z1g.meshes.share import share_out

log = logging.getLogger("z1g")
VERSION = 1
"""Increase whenever conversions of the same mesh change."""
NO_BLENDER = "{} files are converted by Blender, which is not here: run `make blender`, or put `blender` on PATH"


@dataclass(frozen=True)
class Converted:
    """A GLB, its digest, and what made it."""

    path: Path
    digest: str
    converter: str

    def checked(self) -> Path:
        """The file. Raises Unusable if it is not what was converted."""
        if _digest(self.path) != self.digest:
            raise Unusable(f"the converted file {self.path} is damaged; start again to convert the mesh once more")
        return self.path


def needs_conversion(entry: ObjectEntry) -> bool:
    """Whether only Blender reads the format of a mesh."""
    return Path(entry.source).suffix.lower() in CONVERTED


def converted(
    entries: Sequence[ObjectEntry], options: Blender, limits: FileLimits, roots: Sequence[str], scratch: Path,
    threads: int,
) -> dict[str, Converted | Rejected]:  # fmt: skip
    """The GLB of each mesh by id, or the reason why there is none. `options`: of the Blender that converts."""
    outcomes: dict[str, Converted | Rejected] = {}
    missing = []
    for entry in entries:
        known = _known(entry, scratch / "listed" / entry.id, limits, roots)
        if known is None:
            missing.append(entry)
        else:
            outcomes[entry.id] = known
    if not missing:
        return outcomes
    try:
        command = find_blender(options.python, CONVERTER)
    except UserError:
        return outcomes | {entry.id: Rejected(entry.id, _no_blender(entry)) for entry in missing}
    log.info("converting %s with Blender", counted(len(missing), "object"))
    share = share_out(options, threads, len(missing), 1)
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    settings = {"threads": share.threads, "memory_mb": share.memory_mb, "cores": cores}
    folder = scratch / "conversion"
    folder.mkdir()
    with closing(draw(command, settings, _tasks(missing, limits, roots), folder, options, share.processes)) as drawn:
        for entry, outcome in zip(missing, drawn, strict=True):
            outcomes[entry.id] = outcome if isinstance(outcome, Rejected) else _stored(entry, outcome, scratch)
    return outcomes


def _no_blender(entry: ObjectEntry) -> str:
    return NO_BLENDER.format(Path(entry.source).suffix.lower())


def _tasks(entries: Sequence[ObjectEntry], limits: FileLimits, roots: Sequence[str]) -> Iterator[Task]:
    for entry in entries:
        prepared = partial(prepare, entry, limits=limits, roots=roots)
        yield Task(entry.id, prepared, [], partial(readable, entry, roots=roots))


def _known(entry: ObjectEntry, folder: Path, limits: FileLimits, roots: Sequence[str]) -> Converted | Rejected | None:
    """What the cache has of a mesh; None if it must be converted."""
    try:
        record = read_sealed(_record(entry), entry.content)
    except (OSError, ValueError):
        return None
    try:
        beside = prepare(entry, folder, limits, roots).parent
    except Unusable as error:
        return Rejected(entry.id, str(error))
    try:
        if all(_digest(beside / name) == digest for name, digest in record["reads"].items()):
            found = Converted(_store() / f"{record['glb']}.glb", record["glb"], record["converter"])
            return found if found.checked() else None
    except (OSError, KeyError, AttributeError, Unusable):
        return None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _stored(entry: ObjectEntry, drawn: Drawn, scratch: Path) -> Converted | Rejected:
    """Move a converted file to the cache, or where that cannot be written, to `scratch`."""
    if drawn.result["reason"] is not None:
        return Rejected(entry.id, drawn.result["reason"])
    made = drawn.folder / "mesh.glb"
    digest, converter = _digest(made), drawn.result["converter"]
    try:
        path = _store() / f"{digest}.glb"
        with atomic_file(path) as temporary:
            shutil.copyfile(made, temporary)
        if entry.content:
            record = {"glb": digest, "converter": converter, "reads": drawn.result["reads"]}
            write_sealed(_record(entry), record, entry.content)
    except OSError as error:
        log.warning("%s is converted, but not kept: %s cannot be written (%s)", entry.id, _store(), error.strerror)
        path = scratch / f"{digest}.glb"
        shutil.copyfile(made, path)
    shutil.rmtree(drawn.folder)
    return Converted(path, digest, converter)


def _store() -> Path:
    return cache_folder() / "converted"


def _record(entry: ObjectEntry) -> Path:
    key = hashlib.sha256(f"{VERSION} {entry.content}".encode()).hexdigest()
    return _store() / f"{key}.json"


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def placed_as_listed(entry: ObjectEntry, result: dict[str, Any], made: Converted) -> dict[str, Any]:
    """The result of a converted mesh with the up axis of its own format, and with what converted it."""
    up_axis = "z" if Path(entry.source).suffix.lower() == ".blend" else "y"
    normalization = {**result["normalization"], "up_axis": up_axis}
    return {**result, "normalization": normalization, "renderer": f"{result['renderer']}; mesh by {made.converter}"}
