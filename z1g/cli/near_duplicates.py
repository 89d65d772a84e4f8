"""`z1g list --near-duplicates --against`: objects that are nearly the same, in one list or in two."""

import argparse
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from z1g.core.errors import UserError
from z1g.core.names import counted
from z1g.data.manifest import ObjectEntry
from z1g.meshes.duplicates import Looks, Pair, grouped, near_duplicates, near_duplicates_of, shapes_of
from z1g.meshes.listing import find_objects

log = logging.getLogger("z1g")


@dataclass(frozen=True)
class Compared:
    """Objects that are kept, with their groups; pairs of them; pairs of those left out; and reasons of the unread."""

    kept: list[ObjectEntry]
    pairs: list[Pair]
    left_out: list[Pair]
    unread: dict[str, str]

    def rows(self) -> list[dict[str, Any]]:
        """The report: a row a pair, and a row an object that was not compared."""
        return [
            *({**pair.row(), "left_out": True, "against": pair.second.source} for pair in self.left_out),
            *(pair.row() for pair in self.pairs),
            *({"first": name, "why": f"not compared: {reason}"} for name, reason in self.unread.items()),
        ]

    def text(self) -> str:
        """What was found, to be added to the line about the list."""
        sizes = Counter(entry.group for entry in self.kept if entry.group)
        gone = {pair.first.id for pair in self.left_out}
        parts = [f"{counted(len(gone), 'near duplicate')} left out"] if gone else []
        if self.pairs:
            near = {entry.id for pair in self.pairs for entry in (pair.first, pair.second)}
            parts.append(f"{len(near)} near duplicates grouped; the largest of {counted(len(sizes), 'group')} has "
                         f"{max(sizes.values())}")  # fmt: skip
        parts += [f"{len(self.unread)} not compared"] if self.unread else []
        return "".join(f", {part}" for part in parts)


def compare(entries: list[ObjectEntry], arguments: argparse.Namespace) -> Compared:
    """Compare the objects with those at `--against` and, with `--near-duplicates`, with each other.

    Raises UserError if nothing is left.
    """
    # Before shapes are read, which takes long: a path that is not there is said at once.
    against = find_objects(arguments.against, roots=arguments.root) if arguments.against else []
    roots, looks = arguments.root, _looks(arguments.root)
    shapes, left_out = shapes_of(entries, roots), list[Pair]()
    unread = dict(shapes.unread)
    if arguments.against:
        others = shapes_of(against, roots)
        unread |= others.unread
        left_out = near_duplicates_of(shapes, others, looks)
    gone = {pair.first.id for pair in left_out}
    kept = [entry for entry in entries if entry.id not in gone]
    if not kept:
        raise UserError(
            f"nothing is left of {counted(len(entries), 'object')} but near duplicates of those at "
            f"{', '.join(arguments.against)}"
        )
    pairs = near_duplicates(shapes, looks) if arguments.near_duplicates else []
    pairs = [pair for pair in pairs if not {pair.first.id, pair.second.id} & gone]
    return Compared(grouped(kept, pairs) if pairs else kept, pairs, left_out, unread)


def _looks(roots: Sequence[str]) -> Looks | None:
    """How to tell whether objects look alike, or None, with a warning, without the package that it takes."""
    from z1g.sources.looks import Looks as Rendered
    from z1g.sources.looks import missing

    if absent := missing():
        log.warning("near duplicates are found by shape only: %s is not installed", absent)
        return None
    return Rendered(roots, len(os.sched_getaffinity(0)))
