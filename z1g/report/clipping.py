"""How many Gaussians leave the ranges of a representation, which stages `fit` and `autodecoder` count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from z1g.core.files import read_json
from z1g.core.recorded import checked

FILE = "clipping.json"
"""In the folder `model` of stage `autodecoder`."""
DRAWN = "drawn"
Counts = Mapping[str, int]
"""See `Representation.clipped`."""


def summed(counts: Iterable[Counts]) -> dict[str, int]:
    """The sums of counts of several objects."""
    sums: dict[str, int] = {}
    for each in counts:
        for name, n in each.items():
            sums[name] = sums.get(name, 0) + int(n)
    return sums


def text(objects: str, counts: Counts, ranges: str) -> str:
    """A sentence. objects: which ones, with their number. counts: their sums. ranges: which ones."""
    shares = {name: n / max(counts[DRAWN], 1) for name, n in counts.items() if name != DRAWN}
    parts = ", ".join(f"{name} {100 * share:.2g} %" for name, share in shares.items())
    return (
        f"Of the Gaussians of {objects} that are drawn ({counts[DRAWN]}), those that leave a "
        f"{ranges} and are clipped: {parts}."
    )


def of_fits(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """A sentence by each kind of representation that has ranges, from the rows of fitted objects.

    Objects that an earlier version fitted are not counted.
    """
    counted = [row["clipped"] for row in rows if row.get("clipped")]
    kinds = dict.fromkeys(kind for row in counted for kind in row)
    sentences = {}
    for kind in kinds:
        found = [row[kind] for row in counted if kind in row]
        objects = f"{len(found)} object{'' if len(found) == 1 else 's'}"
        sentences[kind] = text(objects, summed(found), f"default range of representation '{kind}'")
    return sentences


def read(stage: Path) -> str | None:
    """The sentence of a trained stage 1; None if nothing was counted. Raises UserError if the file is damaged."""
    file = stage / "model" / FILE
    if not file.is_file():
        return None
    stored = read_json(checked(file))
    counts = {str(name): int(n) for name, n in stored["counts"].items()}
    return text(f"{int(stored['objects'])} training objects", counts, "range of representation.mappings")
