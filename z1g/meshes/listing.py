"""The objects of a data set from folders, globs, files, archives and lists."""

import glob
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.names import did_you_mean
from z1g.core.progress import Meter
from z1g.core.urls import TO_COPY, is_url
from z1g.data.manifest import INSIDE, NAME_LENGTH, ObjectEntry, unique_ids
from z1g.meshes.archives import Model, hidden, models
from z1g.meshes.content import Content, content_of
from z1g.meshes.formats import ARCHIVES, READABLE, is_archive, is_mesh
from z1g.meshes.index import Index
from z1g.meshes.limits import MIB, FileLimits
from z1g.meshes.lists import ENDINGS, read_list
from z1g.meshes.references import references
from z1g.meshes.store import UNREADABLE, Archive, Disk, NotChecked

log = logging.getLogger("z1g")
HASH_IN_ID = 10
QUIET_S = 5.0
GENERIC = ("model", "mesh", "object", "scene", "untitled", "textured", "asset", "source")
"""File names that do not describe the object; the name of its folder is used instead."""
LICENSE = re.compile("licen[sc]e", re.IGNORECASE)
ABOUT = ("name", "category", "creator", "license")
SAID = {**{name: name for name in (*ABOUT, "group", "held_out")}, "source": "origin"}
"""Fields of an entry by the columns of a list that set them."""
NO_CONTENT = Content("", "", "")
ODD = re.compile(r"(^|/)\.?(/|$)")
"""Matches absolute paths, and paths with empty or single-dot parts; to all others, the folder is simply prepended."""


@dataclass(frozen=True)
class MeshFile:
    """A mesh file or a member of an archive, with its metadata.

    `content` is None until it is read. `root`: the folder that the user named, in which its side files may lie.
    """

    source: str
    about: tuple[tuple[str, str], ...] = ()
    content: Content | None = None
    root: str = ""


def find_objects(
    paths: Sequence[str], limits: FileLimits | None = None, roots: Sequence[str] = ()
) -> list[ObjectEntry]:
    """Objects at the paths, sorted by id, without duplicates. Raises UserError if a path has none.

    An object above `limits`, by default those of the configuration, and one that refers to a file outside of its
    folder, of `paths` and of `roots` is not read: it is listed without digests, and `prepare` reports the reason.
    """
    sources: dict[str, MeshFile] = {}
    limits = limits or FileLimits()
    for text in paths:
        index = Index(str(Path(text).absolute()))
        files: dict[str, MeshFile] = {}
        for item in _files_at(text, index, limits):
            files[item.source] = _also_said(files[item.source], item) if item.source in files else item
        if not files:
            raise UserError(f"data.paths: {text}: there is no mesh in it; z1g reads {READABLE}")
        with Meter(f"reading {text}", len(files), quiet_s=QUIET_S) as meter:
            for source, item in files.items():
                if source in sources:
                    sources[source] = _also_said(sources[source], item)
                else:
                    sources[source] = item if item.content is not None else _read(item, index, limits, roots)
                meter.advance()
        index.save()
    return _entries(sources.values())


def known_objects(
    root: Path, files: Sequence[MeshFile], limits: FileLimits, roots: Sequence[str] = ()
) -> list[ObjectEntry]:
    """Objects of files whose places are known, with digests, sorted by id, without duplicates.

    root: the folder of all of them, by which digests are kept in the user's cache.
    """
    index = Index(str(root.absolute()))
    read = []
    with Meter(f"reading {root}", len(files), quiet_s=QUIET_S) as meter:
        for item in files:
            read.append(_read(item, index, limits, roots))
            meter.advance()
    index.save()
    return _entries(read)


def _entries(files: Iterable[MeshFile]) -> list[ObjectEntry]:
    first: dict[str, MeshFile] = {}
    copies: dict[str, list[str]] = {}
    for item in sorted(files, key=lambda item: (INSIDE in item.source, item.source)):
        key = item.source if item.content is None else item.content.content
        if key in first:
            copies.setdefault(key, []).append(item.source)
            first[key] = _also_said(first[key], item)
        else:
            first[key] = item
    if copies:
        log.info("%d duplicate objects are listed once", sum(map(len, copies.values())))
    ids = _ids(list(first.values()))
    entries = [
        _entry(name, item, tuple(copies.get(key, ()))) for name, (key, item) in zip(ids, first.items(), strict=True)
    ]
    return sorted(entries, key=lambda entry: entry.id)


def _also_said(item: MeshFile, other: MeshFile) -> MeshFile:
    """An object with the group and the exclusion of its copy, if it has none: a copy must not undo them."""
    about, others = dict(item.about), dict(other.about)
    said = {name: others[name] for name in ("group", "held_out") if others.get(name) and not about.get(name)}
    return replace(item, about=tuple({**about, **said}.items())) if said else item


def _entry(name: str, item: MeshFile, copies: tuple[str, ...]) -> ObjectEntry:
    digests = item.content or NO_CONTENT
    about = dict(item.about)
    return ObjectEntry(
        name, item.source, digests.content, digests.mesh, digests.textures, **about, copies=copies, root=item.root
    )


def _ids(files: Sequence[MeshFile]) -> list[str]:
    """Ids made of the file's name, cut where it is long, and the first digits of its content hash.

    They are readable and do not depend on the location.
    """
    words = []
    for item in files:
        folder, _, file = item.source.replace(INSIDE, "/").rpartition("/")
        word = stem(file)
        if word.lower() in GENERIC:
            word = Path(folder).name or word
        digest = (
            item.content.content
            if item.content is not None
            else hashlib.sha256(item.source.encode(errors="surrogatepass")).hexdigest()
        )
        words.append(f"{word[:NAME_LENGTH]}-{digest[:HASH_IN_ID]}")
    return unique_ids(words)


def stem(file: str) -> str:
    """`Path(file).stem` of a name without slashes, but 20 times faster: lists have 100,000 rows."""
    dot = file.rfind(".")
    return file[:dot] if 0 < dot < len(file) - 1 else file


def _read(item: MeshFile, index: Index, limits: FileLimits, roots: Sequence[str]) -> MeshFile:
    """The file with its digests, or without them if it cannot be read: rendering reports the reason."""
    path = Path(item.source)

    def make() -> tuple[tuple[list[str], bool], list[Path]]:
        store = Disk(path.parent, [Path(root) for root in (item.root, *roots) if root])
        digests = content_of(store, path.name)
        names = [reference.name for reference in references(store, path.name)]
        files = [path, *(path.parent / name for name in names)]
        return ([digests.content, digests.mesh, digests.textures], store.beyond), files

    try:
        if path.stat().st_size > limits.file_mb * MIB:
            return item
        digests, beyond = index.value(f"{path.absolute()} in {item.root}", make)
    except UNREADABLE:
        return item
    return replace(item, content=Content(*digests), root=item.root if beyond else "")


def _files_at(text: str, index: Index, limits: FileLimits) -> Iterator[MeshFile]:
    if not text.strip():
        raise UserError("data.paths: a path is empty; name a folder, an archive or a list, or leave it out")
    if is_url(text):
        raise UserError(f"data.paths: {text}: {TO_COPY}")
    path, beside = Path(text), {}
    root = path
    if path.is_dir():
        contents = list(path.rglob("*"))
        files, beside = [file for file in contents if _is_candidate(file, path)], _licenses(contents)
        hint = f"the folder has no mesh; z1g reads {READABLE}"
    elif path.is_file() and path.suffix.lower() in ENDINGS:
        yield from _listed(path, index, limits)
        return
    elif path.is_file():
        root = path.parent
        files = [path] if is_mesh(path) or is_archive(path) else []
        beside = _licenses(path.parent.iterdir())
        hint = f"not a mesh file; z1g reads {READABLE}, and lists of them ({', '.join(ENDINGS)})"
    elif INSIDE in text and Path(text.partition(INSIDE)[0]).is_file():
        yield _member(text, index, limits)
        return
    elif glob.has_magic(text):
        root = _before_pattern(path)
        files = [Path(name) for name in glob.glob(text, recursive=True) if _is_candidate(Path(name), Path())]
        hint = f"the pattern matches no mesh in {Path.cwd()}; z1g reads {READABLE}"
    else:
        files, hint = [], f"no such file or folder (current folder: {Path.cwd()}); correct the path"
    if not files:
        raise UserError(f"data.paths: {text}: {hint}")
    for file in files:
        yield from (
            _archive_meshes(file, index, limits)
            if is_archive(file)
            else (MeshFile(file.as_posix(), _license(file, path, beside), root=root.as_posix()),)
        )


def _before_pattern(path: Path) -> Path:
    """The folder of a glob before its first pattern."""
    return next(folder for folder in path.parents if not glob.has_magic(str(folder)))


def _licenses(files: Iterable[Path]) -> dict[Path, list[str]]:
    """Names of license files by folder."""
    names: dict[Path, list[str]] = {}
    for file in sorted(files):
        if LICENSE.search(file.name):
            names.setdefault(file.parent, []).append(file.name)
    return names


def _license(file: Path, root: Path, licenses: dict[Path, list[str]]) -> tuple[tuple[str, str], ...]:
    """The license files nearest to a mesh, in its folder or a parent up to the root."""
    for folder in file.parents:
        if folder in licenses:
            return (("license", f"see {', '.join(licenses[folder])}"),)
        if folder in (root, root.parent):
            break
    return ()


def _is_candidate(file: Path, root: Path) -> bool:
    below = file.relative_to(root).parts if file.is_relative_to(root) else (file.name,)
    return (is_mesh(file) or is_archive(file)) and not hidden(below) and file.is_file()


def _archive_meshes(path: Path, index: Index, limits: FileLimits) -> Iterator[MeshFile]:
    """Meshes in an archive; the archive itself if it cannot be read, so that ingest quarantines it."""

    def make() -> tuple[list[Any], list[Path]]:
        rows = []
        with Archive(path) as archive:
            meshes = models(archive)
            with Meter(f"reading {path.name}", len(meshes), quiet_s=QUIET_S) as meter:
                for model in meshes:
                    rows.append(_described(archive, model, limits.unpacked_mb * MIB))
                    meter.advance()
        return rows, [path]

    try:
        rows = index.value(f"{path.absolute()} up to {limits.unpacked_mb} MiB", make)
    except UNREADABLE:
        yield MeshFile(path.as_posix())
        return
    for row in rows:
        digests = None if row["digests"] is None else Content(*row["digests"])
        yield MeshFile(f"{path.as_posix()}{INSIDE}{row['member']}", tuple(row["about"].items()), digests)


def _member(text: str, index: Index, limits: FileLimits) -> MeshFile:
    """The object `file.zip!/member` of an archive; the archive itself if it cannot be read."""
    file, _, member = text.partition(INSIDE)
    path = Path(file)
    if not is_archive(path):
        raise UserError(f"data.paths: {text}: {file} is not an archive ({', '.join(ARCHIVES)})")
    members = []
    for item in _archive_meshes(path, index, limits):
        _, found, name = item.source.partition(INSIDE)
        if name == member or not found:
            return item
        members.append(name)
    raise UserError(f"data.paths: {text}: the archive has no such object{did_you_mean(member, members)}")


def _described(archive: Archive, model: Model, limit_bytes: int) -> dict[str, Any]:
    about = {key: getattr(model, key) for key in ABOUT if getattr(model, key)}
    try:
        _require_small(archive, model.member, limit_bytes)
        digests = content_of(archive, model.member)
    except UNREADABLE:
        return {"member": model.member, "about": about, "digests": None}
    return {"member": model.member, "about": about, "digests": [digests.content, digests.mesh, digests.textures]}


def _require_small(archive: Archive, member: str, limit_bytes: int) -> None:
    """Raise NotChecked if a mesh and its side files are larger than `limit_bytes` when unpacked."""
    total = archive.size(member)
    if total <= limit_bytes:
        sides = {side.name for side in references(archive, member) if side.exists}
        total += sum(map(archive.size, sides - {member}))
    if total > limit_bytes:
        raise NotChecked(f"{member} and its side files exceed the limit when unpacked")


def _listed(path: Path, index: Index, limits: FileLimits) -> Iterator[MeshFile]:
    n, prefix = 0, "" if path.parent == Path() else f"{path.parent.as_posix().rstrip('/')}/"
    for row in read_list(path):
        n += 1
        about = {name: row[key] for key, name in SAID.items() if key in row}
        file, inside, member = row["path"].partition(INSIDE)
        root = (path.parent / row["root"]).as_posix() if "root" in row else ""
        source = (path.parent / file).as_posix() if ODD.search(file) else prefix + file
        if row.get("content"):
            digests = Content(row["content"], row.get("mesh", ""), row.get("textures", ""))
            yield MeshFile(source + inside + member, tuple(about.items()), digests, root)
        elif is_archive(Path(file)):
            yield from _select(_archive_meshes(Path(source), index, limits), source + inside + member, about)
        else:
            yield MeshFile(source, tuple(about.items()), root=root)
    if not n:
        raise UserError(f"data.paths: {path}: the list is empty")


def _select(files: Iterable[MeshFile], source: str, about: dict[str, str]) -> Iterator[MeshFile]:
    """The meshes of an archive that a list names (one or all); the list's metadata takes precedence."""
    matched = False
    for item in files:
        if item.source == source or INSIDE not in source:
            matched = True
            yield replace(item, about=tuple({**dict(item.about), **about}.items()))
    if not matched:
        yield MeshFile(source, tuple(about.items()))
