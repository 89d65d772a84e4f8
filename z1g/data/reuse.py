"""Reuse of results of the same recipe on the same objects, so that added objects only cost their own processing."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.recorded import identity_of, stage_owner
from z1g.core.sealed import read_sealed
from z1g.data.manifest import Manifest, ObjectEntry


def chunks_made_before(
    folder: Path, recipe: str, objects: Iterable[ObjectEntry]
) -> Iterator[tuple[Path, int, list[str]]]:
    """Chunks in other folders of the stage that contain some of the objects: folder, chunk number, ids.

    Only folders of the same recipe (stage, version and options, see `z1g.plan.identity`) and objects with equal content
    are considered. The caller checks that a chunk exists and that its objects are valid.
    """
    contents = {entry.id: entry.content for entry in objects if entry.content}
    for other in sorted(folder.parent.glob("*/stage.json")):
        record = _record(other)
        if not contents or other.parent == folder or record.get("recipe") != recipe:
            continue
        chunks: dict[int, list[str]] = {}
        manifest = _manifest(other.parent, record)
        if manifest is None:
            continue
        for index, entry in enumerate(manifest.objects):
            if contents.get(entry.id) == entry.content:
                chunks.setdefault(index // manifest.chunk_size, []).append(entry.id)
        for chunk, ids in chunks.items():
            yield other.parent, chunk, ids


def _record(file: Path) -> dict[str, Any]:
    """Content of another folder's `stage.json`, {} if it cannot be used."""
    try:
        return read_sealed(file, stage_owner(identity_of(file.parent)))
    except (OSError, ValueError):
        return {}


def _manifest(folder: Path, record: dict[str, Any]) -> Manifest | None:
    ingest = folder.parent.parent / "ingest" / record["upstream"].get("ingest", folder.name)
    try:
        return Manifest.load(ingest / "manifest.jsonl")
    except (OSError, UserError):
        return None  # an incomplete folder has nothing to reuse
