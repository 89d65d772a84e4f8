"""Stage `ingest`: render a chunk of the data source's objects into a shard of images and a table of results."""

import logging
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.files import atomic_file, write_jsonl
from z1g.core.names import counted
from z1g.core.prefetch import prefetched
from z1g.core.progress import Meter
from z1g.core.recorded import is_recorded
from z1g.data.contact_sheet import ContactSheet
from z1g.data.manifest import ObjectEntry
from z1g.data.reuse import chunks_made_before
from z1g.data.shards import (
    EncodedObject,
    Rejected,
    RenderedObject,
    ShardReader,
    files_of,
    shard_path,
    sheet_path,
    table_path,
    write_members,
)
from z1g.geometry.camera import CONDITION_VIEW
from z1g.plan.folder import StageFolder
from z1g.sources import Ingested

log = logging.getLogger("z1g")


def run(folder: StageFolder, chunk: int, threads: int) -> None:
    """Write `chunk-NNNNN.tar`, a contact sheet `.png` and, last, a table `.jsonl`.

    The table has a row for each object: {id, status, reason, n_views, span, checksums, seconds, seconds_of}. `span` has
    the byte offsets of the object in the shard, `checksums` what its files have to be when they are read. Rejected
    objects are in the table (status "quarantined") but not in the shard. `seconds` is the wall time since the previous
    object, `seconds_of` the time of each part of the object, measured while other objects may be rendered in parallel.
    threads: objects at once; 0: one for each core.
    Raises UserError if the chunk does not exist or if the data source cannot be used.
    """
    manifest = folder.manifest()
    if not 0 <= chunk < manifest.n_chunks:
        raise UserError(f"{folder.path} has no chunk {chunk}; its manifest has {manifest.n_chunks}, counted from 0")
    objects, threads = manifest.chunk(chunk), threads or os.cpu_count() or 1
    sheet, rows = ContactSheet(len(objects)), []
    with (
        tempfile.TemporaryDirectory(prefix="z1g-ingest-", ignore_cleanup_errors=True) as scratch,
        atomic_file(shard_path(folder.path, chunk)) as shard,
        tarfile.open(shard, "w") as tar,
        Meter(f"ingest chunk {chunk}", len(objects)) as meter,
    ):
        before = time.monotonic()
        encode = partial(_encoded, compact=getattr(folder.config.data, "compact", False))
        results = _results(folder, objects, Path(scratch), threads)
        for ingested, files in prefetched(encode, results, threads, ahead=2 * threads):
            row = _stored(ingested.outcome, files, tar, sheet)
            now = time.monotonic()
            rows.append({**row, "seconds": round(now - before, 3), "seconds_of": dict(ingested.seconds)})
            before = now
            meter.advance()
    with atomic_file(sheet_path(folder.path, chunk)) as image:
        sheet.image.save(image, "PNG", optimize=True)
    write_jsonl(table_path(folder.path, chunk), rows)


def _encoded(ingested: Ingested, compact: bool) -> tuple[Ingested, list[tuple[str, bytes]]]:
    """An object with its files; none if it is rejected. Codecs release Python's lock, so threads run side by side."""
    outcome = ingested.outcome
    return ingested, [] if isinstance(outcome, Rejected) else list(files_of(outcome, compact))


def _stored(
    result: RenderedObject | EncodedObject | Rejected, files: list[tuple[str, bytes]], tar: tarfile.TarFile,
    sheet: ContactSheet,
) -> dict[str, Any]:  # fmt: skip
    """Add an object to the shard and to the contact sheet, and return its row of the table."""
    if isinstance(result, Rejected):
        log.warning("%s quarantined: %s", result.id, result.reason)
        sheet.add(result.id, None, result.reason)
        return {"id": result.id, "status": "quarantined", "reason": result.reason, "n_views": 0}
    stored = write_members(tar, result.id, files)
    shown = result.view(CONDITION_VIEW) if isinstance(result, EncodedObject) else result.rgba[CONDITION_VIEW]
    sheet.add(result.id, shown)
    return {"id": result.id, "status": "ok", "reason": None, "n_views": len(result.c2w), **stored.row()}


def _results(folder: StageFolder, objects: Sequence[ObjectEntry], scratch: Path, threads: int) -> Iterator[Ingested]:
    """Yield objects in order: from other data sets with the same recipe if available, else from the data source."""
    reused = _rendered_before(folder, objects)
    if reused:
        log.info("reusing %d of %s from other data sets", len(reused), counted(len(objects), "object"))
    missing = [entry for entry in objects if entry.id not in reused]
    rendered = folder.config.data.ingest(missing, folder.config.camera, scratch, threads)
    for entry in objects:
        yield Ingested(reused[entry.id].read(entry.id)) if entry.id in reused else next(rendered)


def _rendered_before(folder: StageFolder, objects: Sequence[ObjectEntry]) -> dict[str, ShardReader]:
    reused: dict[str, ShardReader] = {}
    for other, chunk, ids in chunks_made_before(folder.path, folder.recipe, objects):
        table = table_path(other, chunk)
        if set(ids) <= reused.keys() or not table.is_file() or not is_recorded(table):
            continue
        reader = ShardReader(shard_path(other, chunk))
        complete = set(reader.ids)
        reused.update((name, reader) for name in ids if name in complete)
    return reused
