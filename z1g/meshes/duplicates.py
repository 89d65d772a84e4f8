"""Near duplicates: one shape with other textures, parts or poses. Such objects must not be on both sides of a split."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from z1g.core.errors import UserError
from z1g.core.progress import Meter
from z1g.data.manifest import GROUP, ObjectEntry
from z1g.meshes.files import Unusable, prepare
from z1g.meshes.limits import FileLimits
from z1g.meshes.raster.scene import MeshError
from z1g.meshes.signature import Signature, shape_distance, signature_of

SAME, SIMILAR = 0.006, 0.02
"""Largest distance of shapes that are near duplicates as they are, and of those that are if they also look alike."""
ALIKE = 0.9
"""Smallest cosine similarity of the rendered features of objects that look alike."""
ROWS_AT_ONCE = 512
Looks = Callable[[Sequence[ObjectEntry]], Mapping[str, Any]]
"""Features [F] of unit length by id, of objects that can be rendered."""


@dataclass(frozen=True)
class Pair:
    """Two near duplicates. `looks`: cosine similarity of their rendered features, None if it was not needed."""

    first: ObjectEntry
    second: ObjectEntry
    distance: float
    triangles: tuple[int, int]
    looks: float | None = None

    def row(self) -> dict[str, Any]:
        """The pair as JSON."""
        why = "same shape" if self.looks is None else "similar shape and look"
        looks = {} if self.looks is None else {"looks": round(self.looks, 4)}
        names = {"first": self.first.id, "second": self.second.id}
        return {**names, "why": why, "distance": round(self.distance, 5), **looks, "triangles": list(self.triangles)}


@dataclass(frozen=True)
class Shapes:
    """Objects with their signatures, and the reasons of those that could not be read, by id."""

    entries: list[ObjectEntry]
    signatures: list[Signature]
    unread: dict[str, str]

    @property
    def quantiles(self) -> Any:
        """Quantiles [N,Q] of all signatures."""
        return np.stack([signature.quantiles for signature in self.signatures])


def shapes_of(entries: Sequence[ObjectEntry], roots: Sequence[str] = (), processes: int | None = None) -> Shapes:
    """Read objects in processes. Raises UserError if one of these dies."""
    read = partial(_signature, roots=tuple(roots))
    found = Shapes([], [], {})
    workers = processes or len(os.sched_getaffinity(0))
    with (
        ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool,
        Meter("reading shapes", len(entries), quiet_s=5.0) as meter,
    ):
        try:
            for entry, signature in zip(entries, pool.map(read, entries, chunksize=4), strict=True):
                if isinstance(signature, Signature):
                    found.entries.append(entry)
                    found.signatures.append(signature)
                else:
                    found.unread[entry.id] = signature
                meter.advance()
        except BrokenProcessPool as error:
            raise UserError(
                f"a process that reads meshes died within {4 * workers} objects of {entries[meter.done].source}, for "
                "lack of memory or by a damaged file; take this object out, or free memory"
            ) from error
    return found


def _signature(entry: ObjectEntry, roots: tuple[str, ...]) -> Signature | str:
    """The signature of an object, or why there is none."""
    with tempfile.TemporaryDirectory(prefix="z1g-shape-") as folder:
        try:
            return signature_of(prepare(entry, Path(folder), FileLimits(), roots))
        except (Unusable, MeshError) as error:
            return str(error)
        except MemoryError:
            return "out of memory on this object"


def near_duplicates(shapes: Shapes, looks: Looks | None = None) -> list[Pair]:
    """All pairs of near duplicates, nearest first. looks: without it, only shapes are compared."""
    return _judged(_candidates(shapes, shapes, apart=True), looks)


def near_duplicates_of(shapes: Shapes, others: Shapes, looks: Looks | None = None) -> list[Pair]:
    """Pairs of an object of `shapes` and a near duplicate of it among `others`, nearest first."""
    return _judged(_candidates(shapes, others, apart=False), looks)


def _candidates(shapes: Shapes, others: Shapes, apart: bool) -> Iterator[Pair]:
    """Pairs of similar shapes. apart: the sets are the same one, of which each pair is needed once."""
    if not shapes.entries or not others.entries:
        return
    quantiles, known = shapes.quantiles, others.quantiles
    for first in range(0, len(quantiles), ROWS_AT_ONCE):
        distances = shape_distance(quantiles[first : first + ROWS_AT_ONCE], known)
        for row, j in np.argwhere(distances <= SIMILAR).tolist():
            i = first + row
            if not apart or i < j:
                triangles = shapes.signatures[i].triangles, others.signatures[j].triangles
                yield Pair(shapes.entries[i], others.entries[j], float(distances[row, j]), triangles)


def _judged(candidates: Iterator[Pair], looks: Looks | None) -> list[Pair]:
    pairs = sorted(candidates, key=lambda pair: (pair.distance, pair.first.id, pair.second.id))
    same = [pair for pair in pairs if pair.distance <= SAME]
    unsure = [pair for pair in pairs if pair.distance > SAME]
    if looks is None or not unsure:
        return same
    seen = looks(list({entry.source: entry for pair in unsure for entry in (pair.first, pair.second)}.values()))
    for pair in unsure:
        if pair.first.source in seen and pair.second.source in seen:
            similarity = float(seen[pair.first.source] @ seen[pair.second.source])
            if similarity >= ALIKE:
                same.append(replace(pair, looks=similarity))
    return same


def grouped(entries: Sequence[ObjectEntry], pairs: Sequence[Pair]) -> list[ObjectEntry]:
    """The objects with groups that near duplicates share. Groups that a pair connects become one.

    A group keeps the first of its names in alphabetical order, or is named after the first of its objects.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number = {entry.id: i for i, entry in enumerate(entries)}
    for entry in entries:
        if entry.group:
            number.setdefault(GROUP + entry.group, len(number))
    edges = [(number[entry.id], number[GROUP + entry.group]) for entry in entries if entry.group]
    edges += [(number[pair.first.id], number[pair.second.id]) for pair in pairs]
    first, second = np.array(edges, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges), bool), (first, second)), shape=(len(number), len(number)))
    _, labels = connected_components(graph, directed=False)
    names: dict[int, list[str]] = {}
    for name, i in number.items():
        names.setdefault(int(labels[i]), []).append(name)
    called = {label: min(members).removeprefix(GROUP) for label, members in names.items() if len(members) > 1}
    return [replace(entry, group=called.get(int(labels[number[entry.id]]), "")) for entry in entries]
