"""Measurements of other systems, as `z1g evaluate` writes them to `results/peers/<name>/`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.files import read_jsonl
from z1g.core.names import counted
from z1g.core.recorded import file_digest
from z1g.core.sealed import Damaged, read_sealed
from z1g.report.collect import JsonRow, Measurements, MetricInfo, Results
from z1g.report.cost import cost_text

FOLDER, RECORD = "peers", "peer.json"
FILES = ("metrics.jsonl", "objects.jsonl", "images")
SOURCE = "peer"
"""Source of the rows of other systems."""
PEER_COSTS = {
    "seconds_per_object": ("seconds", MetricInfo("sampling", "s/object", False)),
    "parameters": ("parameters", MetricInfo("all networks", "parameters", False)),
    "memory_gb": ("memory_gb", MetricInfo("peak memory", "GB", False)),
}
"""Costs of other systems: the field of `cost.json`, and its label and unit."""
MOST_SHOWN = 3
"""Problems of a system that the table names."""
PREFIX = "peer: "
"""Before the name of a system in tables."""


def peer_owner(name: str) -> str:
    """What the checksum of a record covers besides its content."""
    return f"{FOLDER}/{name}"


@dataclass(frozen=True)
class Peer:
    """A system that was measured. `record` is the content of its `peer.json`."""

    name: str
    measured: Measurements
    record: dict[str, Any]
    folder: Path

    @property
    def label(self) -> str:
        """Its name in tables, with what was done to its outputs."""
        return f"{PREFIX}{self.name}{' (registered)' if self.record['registered'] else ''}"

    @property
    def n_measured(self) -> int:
        """Number of objects that were measured."""
        return len(self.measured.truth)

    def image(self, name: str) -> Path:
        """The image of an object's first test view. Raises OSError if it is missing or has changed."""
        file = f"images/{name}.{SOURCE}.png"
        recorded = self.record["files"].get(file)
        if recorded is None or file_digest(self.folder / file) != recorded["sha256"]:
            raise OSError("it has changed since it was written" if recorded else "it was not recorded")
        return self.folder / file

    def why_missing(self, name: str) -> str:
        """Why an object was not measured; empty if it was."""
        if name in self.measured.truth:
            return ""
        return str(self.record["problems"].get(name, "not in its list of objects"))

    def sampled(self) -> Peer:
        """The same with rows of the source `sampled`: its outputs stand beside the samples of our methods."""

        def renamed(rows: Iterable[JsonRow]) -> list[JsonRow]:
            return [{**row, "source": "sampled"} if row["source"] == SOURCE else row for row in rows]

        own = self.measured
        return replace(
            self, measured=replace(own, rows=renamed(own.rows), objects=renamed(own.objects), sets=renamed(own.sets))
        )


def comparable(results: Results, ours: Iterable[Measurements]) -> list[Peer]:
    """Systems that were measured on the images of our measurements; others are noted, as are damaged ones."""
    truths = [measured.truth for measured in ours]
    found = []
    for folder in sorted(file.parent for file in results.root.glob(f"{FOLDER}/*/{RECORD}")):
        try:
            peer = read_peer(folder)
        except UserError as error:
            results.note(str(error))
            continue
        if not any(_same_images(peer.measured.truth, truth) for truth in truths):
            results.note(f"{PREFIX}{peer.name} is left out: it was measured on other objects, views or images")
        else:
            found.append(peer)
    return found


def _same_images(theirs: Mapping[str, str], ours: Mapping[str, str]) -> bool:
    """Whether there are common objects, and all of them have the same test images."""
    common = theirs.keys() & ours.keys()
    return bool(common) and all(theirs[name] == ours[name] for name in common)


def coverage_texts(peers: Iterable[Peer]) -> list[str]:
    """Sentences on which objects a system's row is about, and on what was done to its outputs."""
    texts = []
    for peer in peers:
        record, n = peer.record, peer.n_measured
        if n < record["n_evaluated"]:
            unasked = record["n_evaluated"] - len(record["wanted"])
            reasons = _reasons(record["problems"]) if record["problems"] else ""
            reasons += f" {unasked} are not in its list." if unasked else ""
            texts.append(
                f"{peer.label}: {n} of {counted(record['n_evaluated'], 'object')} were measured; its row and its "
                f"differences are about {counted(n, 'object')} only. {reasons}".rstrip()
            )
        elif record["problems"]:
            texts.append(f"{peer.label}: {_reasons(record['problems'])}")
        if record["registered"]:
            texts.append(
                f"{peer.label}: each output was scaled, turned about the upright axis and moved to fit the true views "
                "(not the test views), which favors it."
            )
        elif record["unknown"]:
            texts.append(f"{peer.label}: unknown about its frame {record['frame']}: {'; '.join(record['unknown'])}.")
    return texts


def costs(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Costs of a system as they were given, by the keys of PEER_COSTS; None is unknown."""
    given = record.get("cost") or {}
    return {key: given.get(name) for key, (name, _) in PEER_COSTS.items()}


def cost_texts(peers: Iterable[Peer]) -> list[str]:
    """A sentence a system on what it costs, as its users gave it."""
    texts = []
    for peer in peers:
        found = costs(peer.record)
        known = [f"{cost_text(value)} {PEER_COSTS[key][1].unit}" for key, value in found.items() if value is not None]
        hardware = (peer.record.get("cost") or {}).get("hardware")
        if known:
            texts.append(f"{peer.label}, as given: {', '.join(known)}{f', on {hardware}' if hardware else ''}.")
    return texts


def _reasons(problems: Mapping[str, str]) -> str:
    """The first problems, and the number of all."""
    shown = [f"{name}: {why}" for name, why in list(problems.items())[:MOST_SHOWN]]
    more = len(problems) - len(shown)
    return "; ".join(shown) + (f"; and {more} more in its {RECORD}" if more > 0 else "") + "."


def read_peers(results: Path) -> list[Peer]:
    """All measured systems, by name. Raises UserError for one whose files are damaged."""
    return [read_peer(file.parent) for file in sorted(results.glob(f"{FOLDER}/*/{RECORD}"))]


def read_peer(folder: Path) -> Peer:
    """The measurements in a folder. Raises UserError if there are none or if they are damaged."""
    try:
        record = read_sealed(folder / RECORD, peer_owner(folder.resolve().name))
        for name in FILES[:2]:
            if file_digest(folder / name) != record["files"][name]["sha256"]:
                raise Damaged(f"{name} has changed since it was written")
        rows, objects = (read_jsonl(folder / file) for file in FILES[:2])
        metrics = {name: MetricInfo(**info) for name, info in record["metrics"].items()}
        extra = {
            key: record[key] for key in ("missing", "versions", "commit", "sets", "gaps", "truth") if key in record
        }
        measured = Measurements(rows, metrics, objects=objects, **extra)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} cannot be used: {error}; run `z1g evaluate` again, or delete it") from error
    return Peer(folder.name, measured, record, folder)
