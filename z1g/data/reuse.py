"""Results of the same recipe on the same objects are taken over: a longer list of objects costs only what is new."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from z1g.core.files import read_json
from z1g.data.manifest import Manifest, ObjectEntry


def chunks_made_before(
    folder: Path, recipe: str, objects: Iterable[ObjectEntry]
) -> Iterator[tuple[Path, int, list[str]]]:
    """Chunks of other folders of the stage that list some of the objects: folder, chunk number, ids.

    Only folders made by the same recipe (stage, version and options, see `z1g.plan.identity`) from equal content count.
    Whether a chunk is there, and whether the objects in it came out well, is for the caller to see.
    """
    wanted = {entry.id: entry.content for entry in objects if entry.content}
    for other in sorted(folder.parent.glob("*/stage.json")):
        record = read_json(other)
        if not wanted or other.parent == folder or record.get("recipe") != recipe:
            continue
        chunks: dict[int, list[str]] = {}
        manifest = _manifest(other.parent, record)
        if manifest is None:
            continue
        for place, entry in enumerate(manifest.objects):
            if wanted.get(entry.id) == entry.content:
                chunks.setdefault(place // manifest.chunk_size, []).append(entry.id)
        for chunk, ids in chunks.items():
            yield other.parent, chunk, ids


def _manifest(folder: Path, record: dict[str, Any]) -> Manifest | None:
    ingest = folder.parent.parent / "ingest" / record["upstream"].get("ingest", folder.name)
    try:
        return Manifest.load(ingest / "manifest.jsonl")
    except (OSError, ValueError, KeyError, TypeError):
        return None  # an old folder that is not whole offers nothing
