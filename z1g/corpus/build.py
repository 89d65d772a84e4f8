"""Builds the folder of one source: GLB files, the list, what was rejected, sheets of thumbnails, and credits."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.files import atomic_file, write_jsonl, write_text
from z1g.core.names import counted
from z1g.core.progress import Meter
from z1g.corpus.converter import Converted, Converter
from z1g.corpus.credits import credits_of
from z1g.corpus.excluded import require_allowed
from z1g.corpus.source import Item
from z1g.corpus.sources import SOURCES
from z1g.data.contact_sheet import ContactSheet
from z1g.meshes.content import content_of
from z1g.meshes.raster.context import NoOpenGL
from z1g.meshes.store import Disk

log = logging.getLogger("z1g")
LIST, REJECTED, CREDITS, SHEET, REJECTED_SHEET = (
    "objects.jsonl", "rejected.jsonl", "CREDITS.md", "sheet.webp", "rejected.webp",
)  # fmt: skip
THUMBNAILS = 320
AT_ONCE = 256
"""Objects that are handed to the processes at once; if one crashes, so many are tried again one by one."""
DUPLICATE = "the same geometry, and images or main texture, as "
_converter: list[Converter] = []
"""Of this process."""


def build(name: str, folder: Path, out: Path, largest: int = 512, processes: int = 2, limit: int | None = None) -> str:
    """Convert a source from its unpacked packages in `folder` to `out`; return a line of counts.

    largest: side of textures, texels. limit: objects to try, all by default. Raises UserError.
    """
    source = SOURCES[name](folder)
    items = source.items()
    require_allowed(item.key for item in items)
    if not items:
        raise UserError(f"{folder}: no objects in it; give the folder with the files of {source.of}")
    first: dict[tuple[str, str], str] = {}
    done: list[Converted] = []
    with Meter(name, len(items[:limit])) as meter:
        for converted in _converted(name, folder, out, largest, processes, items[:limit]):
            done.append(_unless_known(converted, first, out))
            meter.advance()
    listed = [item for item in done if item.reason is None]
    rejected = [item for item in done if item.reason is not None]
    _write(name, out, listed, rejected)
    write_text(out / CREDITS, credits_of(source, [item.item for item in listed]))
    return f"{name}: {counted(len(listed), 'object')} listed, {len(rejected)} rejected ({_reasons(rejected)})"


def _converted(
    name: str, folder: Path, out: Path, largest: int, processes: int, items: Sequence[Item]
) -> Iterator[Converted]:
    """Results in the order of items. An object that crashes its process twice is rejected."""
    start = (name, folder, out, largest)
    for begin in range(0, len(items), AT_ONCE):
        some = items[begin : begin + AT_ONCE]
        done: dict[int, Converted] = {}
        try:
            with _pool(processes, start) as pool:
                for index, converted in enumerate(pool.map(_convert, some, chunksize=8)):
                    done[index] = converted
        except BrokenProcessPool:
            log.warning("a process crashed; the objects that it left are converted one by one")
        except NoOpenGL as error:
            raise UserError(str(error)) from error
        for index, item in enumerate(some):
            yield done[index] if index in done else _alone(item, start)


def _alone(item: Item, start: tuple[Any, ...]) -> Converted:
    try:
        with _pool(1, start) as pool:
            return pool.submit(_convert, item).result()
    except BrokenProcessPool:
        return Converted(item, "the converter crashes on this object")


def _pool(processes: int, start: tuple[Any, ...]) -> ProcessPoolExecutor:
    # Drivers of OpenGL do not survive a fork.
    return ProcessPoolExecutor(processes, get_context("spawn"), _start, start)


def _start(name: str, folder: Path, out: Path, largest: int) -> None:
    _converter[:] = [Converter(SOURCES[name](folder), out, largest)]


def _convert(item: Item) -> Converted:
    return _converter[0].convert(item)


def _unless_known(converted: Converted, first: dict[tuple[str, str], str], out: Path) -> Converted:
    """Reject an object with the geometry of an earlier one and its images, or its main texture in other colors.

    first: keys of objects by what they have; what is new is added.
    """
    if converted.reason is not None:
        return converted
    keys = [(converted.shape, converted.textures), (converted.shape, converted.group)]
    known = next((first[key] for key in keys if key in first), None)
    if known is None:
        first.update(dict.fromkeys(keys, converted.item.key))
        return converted
    (out / converted.file).unlink()
    return replace(converted, reason=DUPLICATE + known, file="")


def _write(name: str, out: Path, listed: Sequence[Converted], rejected: Sequence[Converted]) -> None:
    store = Disk(out)
    write_jsonl(out / LIST, [_row(name, item, content_of(store, item.file).content) for item in listed])
    write_jsonl(out / REJECTED, [
        {"object": item.item.key, "name": item.item.name, "category": item.item.category, "source": name,
         "reason": item.reason}
        for item in rejected
    ])  # fmt: skip
    _sheet(out / SHEET, listed)
    _sheet(out / REJECTED_SHEET, [item for item in rejected if item.thumbnail is not None])


def _row(name: str, converted: Converted, content: str) -> dict[str, str]:
    item = converted.item
    row = {
        "path": converted.file, "name": item.name, "category": item.category, "source": name, "creator": item.creator,
        "license": item.license, "group": converted.group, "held_out": item.held_out, "content": content,
        "mesh": converted.shape, "textures": converted.textures,
    }  # fmt: skip
    return {key: value for key, value in row.items() if value}


def _sheet(path: Path, items: Sequence[Converted]) -> None:
    """Thumbnails of up to 320 objects, evenly chosen."""
    step = max(1.0, len(items) / THUMBNAILS)
    shown = [items[int(i * step)] for i in range(min(len(items), THUMBNAILS))]
    sheet = ContactSheet(len(shown))
    for converted in shown:
        sheet.add(Path(converted.item.key).stem, converted.thumbnail)
    with atomic_file(path) as temporary:
        sheet.image.save(temporary, "WEBP", quality=85)


def _reasons(rejected: Sequence[Converted]) -> str:
    """Numbers of rejected objects by the first words of the reason, without measures."""
    words = Counter(kind_of(item.reason or "") for item in rejected)
    return ", ".join(f"{number} {kind}" for kind, number in words.most_common()) or "none"


def kind_of(reason: str) -> str:
    """The kind of a reason: it without numbers and names."""
    kinds = {
        DUPLICATE: "duplicates", "triangles;": "with too few or too many triangles", "thin:": "thin",
        "covers": "with a small silhouette", "separate blobs": "in pieces", "colors vary": "without variation",
        "texture missing": "without their textures", "has no faces": "empty", "one plain color": "of one plain color",
    }  # fmt: skip
    return next((kind for words, kind in kinds.items() if words in reason), "unreadable")
