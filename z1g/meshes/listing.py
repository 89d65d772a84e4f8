"""From what people give (folders, globs, files, archives, lists) to the objects of a data set."""

import glob
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.progress import Meter
from z1g.data.manifest import INSIDE, ObjectEntry, unique_ids
from z1g.meshes.archives import Model, hidden, models
from z1g.meshes.content import Content, content_of
from z1g.meshes.formats import READABLE, is_archive, is_mesh
from z1g.meshes.index import Index
from z1g.meshes.lists import ENDINGS, read_list
from z1g.meshes.references import references
from z1g.meshes.store import UNREADABLE, Archive, Disk

log = logging.getLogger("z1g")
HASH_IN_ID = 10
QUIET_S = 5.0
GENERIC = ("model", "mesh", "object", "scene", "untitled", "textured", "asset", "source")
"""File names that say nothing of the object; its folder's does."""
LICENSE = re.compile("licen[sc]e", re.IGNORECASE)
ABOUT = ("name", "category", "creator", "license")
NO_CONTENT = Content("", "", "")
ODD = re.compile(r"(^|/)\.?(/|$)")
"""An absolute path, or one with empty or single-dot parts; any other only needs its folder in front."""


@dataclass(frozen=True)
class Found:
    """A mesh file, or a member of an archive, with what is known of it; `content` is None until it is read."""

    source: str
    about: tuple[tuple[str, str], ...] = ()
    content: Content | None = None


def find_objects(paths: Sequence[str]) -> list[ObjectEntry]:
    """Objects behind paths, sorted by id; those of equal content once. Raises UserError where a path gives none."""
    sources: dict[str, Found] = {}
    for text in paths:
        index = Index(str(Path(text).absolute()))
        found = {item.source: item for item in _expand(text, index)}
        with Meter(f"reading {text}", len(found), quiet_s=QUIET_S) as meter:
            for source, item in found.items():
                if source not in sources:
                    sources[source] = item if item.content is not None else _read(item, index)
                meter.advance()
        index.save()
    return _entries(sources.values())


def _entries(found: Iterable[Found]) -> list[ObjectEntry]:
    first: dict[str, Found] = {}
    copies: dict[str, list[str]] = {}
    for item in sorted(found, key=lambda item: (INSIDE in item.source, item.source)):
        key = item.source if item.content is None else item.content.content
        if key in first:
            copies.setdefault(key, []).append(item.source)
        else:
            first[key] = item
    if copies:
        log.info("%d copies of objects are listed once", sum(map(len, copies.values())))
    ids = _ids(list(first.values()))
    entries = [
        _entry(name, item, tuple(copies.get(key, ()))) for name, (key, item) in zip(ids, first.items(), strict=True)
    ]
    return sorted(entries, key=lambda entry: entry.id)


def _entry(name: str, item: Found, copies: tuple[str, ...]) -> ObjectEntry:
    digests = item.content or NO_CONTENT
    about = dict(item.about)
    return ObjectEntry(name, item.source, digests.content, digests.mesh, digests.textures, **about, copies=copies)


def _ids(found: Sequence[Found]) -> list[str]:
    """A word from the file's name, then the beginning of its content's hash: readable, and the same everywhere."""
    words = []
    for item in found:
        folder, _, file = item.source.replace(INSIDE, "/").rpartition("/")
        word = stem(file)
        if word.lower() in GENERIC:
            word = Path(folder).name or word
        digest = item.content.content if item.content is not None else hashlib.sha256(item.source.encode()).hexdigest()
        words.append(f"{word}-{digest[:HASH_IN_ID]}")
    return unique_ids(words)


def stem(file: str) -> str:
    """`Path(file).stem` of a name without slashes, twenty times as fast: lists have 100,000 rows."""
    dot = file.rfind(".")
    return file[:dot] if 0 < dot < len(file) - 1 else file


def _read(item: Found, index: Index) -> Found:
    """The same object with its digests, without them where it cannot be read: rendering will say why."""
    path = Path(item.source)

    def make() -> tuple[list[str], list[Path]]:
        store = Disk(path.parent)
        digests = content_of(store, path.name)
        side = [path.parent / reference.name for reference in references(store, path.name)]
        return [digests.content, digests.mesh, digests.textures], [path, *side]

    try:
        return replace(item, content=Content(*index.value(str(path.absolute()), make)))
    except OSError:
        return item


def _expand(text: str, index: Index) -> Iterator[Found]:
    path, beside = Path(text), {}
    if path.is_dir():
        everything = list(path.rglob("*"))
        found, beside = [file for file in everything if _wanted(file, path)], _licenses(everything)
        hint = f"the folder holds no mesh; z1g reads {READABLE}"
    elif path.is_file() and path.suffix.lower() in ENDINGS:
        yield from _listed(path, index)
        return
    elif path.is_file():
        found = [path] if is_mesh(path) or is_archive(path) else []
        beside = _licenses(path.parent.iterdir())
        hint = f"not a mesh file; z1g reads {READABLE}, and lists of them ({', '.join(ENDINGS)})"
    elif glob.has_magic(text):
        found = [Path(name) for name in glob.glob(text, recursive=True) if _wanted(Path(name), Path())]
        hint = f"the pattern matches no mesh in {Path.cwd()}; z1g reads {READABLE}"
    else:
        found, hint = [], f"no such file or folder (looked from {Path.cwd()}); correct data.paths"
    if not found:
        raise UserError(f"data.paths: {text}: {hint}")
    for file in found:
        yield from _inside(file, index) if is_archive(file) else (Found(file.as_posix(), _license(file, path, beside)),)


def _licenses(files: Iterable[Path]) -> dict[Path, list[str]]:
    """Names of license files by folder."""
    found: dict[Path, list[str]] = {}
    for file in sorted(files):
        if LICENSE.search(file.name):
            found.setdefault(file.parent, []).append(file.name)
    return found


def _license(file: Path, root: Path, known: dict[Path, list[str]]) -> tuple[tuple[str, str], ...]:
    """The license files nearest to a mesh, in its folder or one above it up to the root."""
    for folder in file.parents:
        if folder in known:
            return (("license", f"see {', '.join(known[folder])}"),)
        if folder in (root, root.parent):
            break
    return ()


def _wanted(file: Path, root: Path) -> bool:
    below = file.relative_to(root).parts if file.is_relative_to(root) else (file.name,)
    return (is_mesh(file) or is_archive(file)) and not hidden(below) and file.is_file()


def _inside(path: Path, index: Index) -> Iterator[Found]:
    """What an archive holds; the archive itself where it cannot be read, for ingest to quarantine."""

    def make() -> tuple[list[Any], list[Path]]:
        rows = []
        with Archive(path) as archive:
            found = models(archive)
            with Meter(f"reading {path.name}", len(found), quiet_s=QUIET_S) as meter:
                for model in found:
                    rows.append(_described(archive, model))
                    meter.advance()
        return rows, [path]

    try:
        rows = index.value(str(path.absolute()), make)
    except UNREADABLE:
        yield Found(path.as_posix())
        return
    for row in rows:
        digests = None if row["digests"] is None else Content(*row["digests"])
        yield Found(f"{path.as_posix()}{INSIDE}{row['member']}", tuple(row["about"].items()), digests)


def _described(archive: Archive, model: Model) -> dict[str, Any]:
    about = {key: getattr(model, key) for key in ABOUT if getattr(model, key)}
    try:
        digests = content_of(archive, model.member)
    except UNREADABLE:
        return {"member": model.member, "about": about, "digests": None}
    return {"member": model.member, "about": about, "digests": [digests.content, digests.mesh, digests.textures]}


def _listed(path: Path, index: Index) -> Iterator[Found]:
    n, beside = 0, "" if path.parent == Path() else f"{path.parent.as_posix().rstrip('/')}/"
    for row in read_list(path):
        n += 1
        about = {key: row[key] for key in ABOUT if key in row}
        file, inside, member = row["path"].partition(INSIDE)
        source = (path.parent / file).as_posix() if ODD.search(file) else beside + file
        if row.get("content"):
            digests = Content(row["content"], row.get("mesh", ""), row.get("textures", ""))
            yield Found(source + inside + member, tuple(about.items()), digests)
        elif is_archive(Path(file)):
            yield from _chosen(_inside(Path(source), index), source + inside + member, about)
        else:
            yield Found(source, tuple(about.items()))
    if not n:
        raise UserError(f"data.paths: {path}: the list is empty")


def _chosen(found: Iterable[Found], source: str, about: dict[str, str]) -> Iterator[Found]:
    """Of an archive's objects the one that a list names, all where it names the archive; the list's words win."""
    there = False
    for item in found:
        if item.source == source or INSIDE not in source:
            there = True
            yield replace(item, about=tuple({**dict(item.about), **about}.items()))
    if not there:
        yield Found(source, tuple(about.items()))
