"""What the report says of the data: what it looks like, whose it is, what had to be set aside."""

from collections import Counter
from dataclasses import dataclass

from z1g.core.stages import CHUNKED_BY_OBJECTS
from z1g.data.manifest import Manifest, ObjectEntry
from z1g.report.collect import Ablation, Results, shared_ids
from z1g.report.images import image_uri
from z1g.report.summary import in_words

MAX_LISTED = 40
MAX_SHEETS = 4
SHEET_SIDE = 1024
NO_LICENSE, NO_CREATOR = "no license recorded", "creator not recorded"


@dataclass(frozen=True)
class Listed:
    """The first rows of a longer list, how long it is, and counts by the rows' last column."""

    rows: list[tuple[str, ...]]
    total: int
    reasons: list[tuple[str, int]]


@dataclass(frozen=True)
class License:
    """Objects under one license: how many, and (creator, names) in full, because some licenses ask for that."""

    text: str
    n: int
    creators: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class Sheets:
    """Contact sheets of one data set: the first of them as data URIs, and how many there are."""

    uris: list[str]
    total: int
    folder: str


def quarantined(tree: Results, ablations: list[Ablation]) -> Listed:
    """Objects that ingest or fit set aside, with reasons."""
    rows: list[tuple[str, ...]] = []
    n_all = len(ablations)
    for stage in CHUNKED_BY_OBJECTS:
        for identity, names in shared_ids(ablations, stage).items():
            bad = [row for row in tree.chunks(stage, identity) if row.get("status") == "quarantined"]
            rows += [(row["id"], stage, row.get("reason") or "no reason given", in_words(names, n_all)) for row in bad]
    reasons = Counter(row[2].split(":")[0] for row in rows).most_common()
    return Listed(rows[:MAX_LISTED], len(rows), reasons)


def below_minimum(tree: Results, ablations: list[Ablation]) -> Listed:
    """Fits that stayed below the configured minimum PSNR, worst first."""
    rows: list[tuple[str, ...]] = []
    for identity, names in shared_ids(ablations, "fit").items():
        poor = [row for row in tree.chunks("fit", identity) if row.get("below_minimum")]
        users = in_words(names, len(ablations))
        poor.sort(key=lambda row: row.get("psnr") or 0.0)
        rows += [(row["id"], _decibel(row.get("psnr")), str(row.get("steps", "–")), users) for row in poor]
    return Listed(rows[:MAX_LISTED], len(rows), [])


def licenses(tree: Results, ablations: list[Ablation]) -> list[License]:
    """Whose the objects are, from the manifests; empty where these know neither licenses nor creators."""
    found: dict[str, dict[str, list[str]]] = {}
    for identity in shared_ids(ablations, "ingest"):
        for entry in _manifest(tree, identity):
            if entry.license or entry.creator:
                names = found.setdefault(entry.license or NO_LICENSE, {}).setdefault(entry.creator or NO_CREATOR, [])
                names.append(entry.name or entry.id)
    return [
        License(text, sum(map(len, creators.values())), sorted(creators.items()))
        for text, creators in sorted(found.items())
    ]


def copies(tree: Results, ablations: list[Ablation]) -> int:
    """How many files had the content of another, and were left out."""
    return sum(len(entry.copies) for identity in shared_ids(ablations, "ingest") for entry in _manifest(tree, identity))


def contact_sheets(tree: Results, ablations: list[Ablation]) -> list[Sheets]:
    """The first contact sheets of every data set."""
    found = []
    for identity in shared_ids(ablations, "ingest"):
        folder = tree.folder("ingest", identity)
        files = sorted(folder.glob("chunk-*.png"))
        uris = []
        for file in files[:MAX_SHEETS]:
            try:
                uris.append(image_uri(file, SHEET_SIDE))
            except OSError as error:
                tree.note(f"{file.relative_to(tree.root)} cannot be shown ({error})")
        if uris:
            found.append(Sheets(uris, len(files), str(folder.relative_to(tree.root.parent))))
    return found


def _manifest(tree: Results, identity: str) -> tuple[ObjectEntry, ...]:
    path = tree.folder("ingest", identity) / "manifest.jsonl"
    try:
        return Manifest.load(path).objects
    except (OSError, ValueError, TypeError, KeyError) as error:
        tree.note(f"{path.relative_to(tree.root)} cannot be read ({error})")
        return ()


def _decibel(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} dB"
