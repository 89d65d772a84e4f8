"""Ingest: turn one chunk of the data source's objects into a shard of images and a table of what became of each."""

import logging
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.files import atomic_file, write_jsonl
from z1g.core.progress import Meter
from z1g.data.contact_sheet import ContactSheet
from z1g.data.manifest import ObjectEntry
from z1g.data.reuse import chunks_made_before
from z1g.data.shards import Rejected, RenderedObject, ShardReader, shard_path, sheet_path, table_path, write_object
from z1g.geometry.camera import CONDITION_VIEW
from z1g.plan.folder import StageFolder
from z1g.sources import Ingested

log = logging.getLogger("z1g")


def run(folder: StageFolder, chunk: int, threads: int) -> None:
    """Write `chunk-NNNNN.tar`, a contact sheet `.png` and last a table `.jsonl`.

    The table has a line for each object: {id, status, reason, n_views, span, seconds, seconds_of}. `span` is where in
    the shard the object begins and ends. A rejected object is in the table (status "quarantined"), not in the shard.
    `seconds` is wall-clock time since the object before, `seconds_of` what each part of the object took, others being
    drawn beside it. Raises UserError where the chunk does not exist or the data source cannot work at all.
    """
    manifest = folder.manifest()
    if not 0 <= chunk < manifest.n_chunks:
        raise UserError(f"{folder.path} has no chunk {chunk}; its manifest has {manifest.n_chunks}, counted from 0")
    objects = manifest.chunk(chunk)
    sheet, rows = ContactSheet(len(objects)), []
    with (
        tempfile.TemporaryDirectory(prefix="z1g-ingest-", ignore_cleanup_errors=True) as scratch,
        atomic_file(shard_path(folder.path, chunk)) as shard,
        tarfile.open(shard, "w") as tar,
        Meter(f"ingest chunk {chunk}", len(objects)) as meter,
    ):
        before = time.monotonic()
        for ingested in _results(folder, objects, Path(scratch), threads):
            row = _stored(ingested.outcome, tar, sheet)
            now = time.monotonic()
            rows.append({**row, "seconds": round(now - before, 3), "seconds_of": dict(ingested.seconds)})
            before = now
            meter.advance()
    with atomic_file(sheet_path(folder.path, chunk)) as image:
        sheet.image.save(image, "PNG", optimize=True)
    write_jsonl(table_path(folder.path, chunk), rows)


def _stored(result: RenderedObject | Rejected, tar: tarfile.TarFile, sheet: ContactSheet) -> dict[str, Any]:
    """Put an object into the shard and onto the sheet; return its row of the table."""
    if isinstance(result, Rejected):
        log.warning("%s quarantined: %s", result.id, result.reason)
        sheet.add(result.id, None, result.reason)
        return {"id": result.id, "status": "quarantined", "reason": result.reason, "n_views": 0}
    span = write_object(tar, result)
    sheet.add(result.id, result.rgba[CONDITION_VIEW])
    return {"id": result.id, "status": "ok", "reason": None, "n_views": len(result.rgba), "span": list(span)}


def _results(folder: StageFolder, objects: Sequence[ObjectEntry], scratch: Path, threads: int) -> Iterator[Ingested]:
    """Objects in order: those that an earlier data set has rendered the same way, the others from the data source."""
    known = _rendered_before(folder, objects)
    if known:
        log.info("%d of %d objects are taken over from earlier data sets", len(known), len(objects))
    missing = [entry for entry in objects if entry.id not in known]
    fresh = folder.config.data.ingest(missing, folder.config.camera, scratch, threads)
    for entry in objects:
        yield Ingested(known[entry.id].read(entry.id)) if entry.id in known else next(fresh)


def _rendered_before(folder: StageFolder, objects: Sequence[ObjectEntry]) -> dict[str, ShardReader]:
    found: dict[str, ShardReader] = {}
    for other, chunk, ids in chunks_made_before(folder.path, folder.recipe, objects):
        if set(ids) <= found.keys() or not table_path(other, chunk).is_file():
            continue
        reader = ShardReader(shard_path(other, chunk))
        whole = set(reader.ids)
        found.update((name, reader) for name in ids if name in whole)
    return found
