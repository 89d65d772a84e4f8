"""The report's data section: contact sheets, licenses and quarantined objects."""

from collections import Counter
from dataclasses import dataclass

from z1g.core.errors import UserError
from z1g.core.recorded import checked, stage_folder
from z1g.core.stages import CHUNKED_BY_OBJECTS
from z1g.data.manifest import Manifest, ObjectEntry, SplitOptions
from z1g.report.clipping import of_fits
from z1g.report.collect import Ablation, Results, shared_ids
from z1g.report.images import image_uri
from z1g.report.summary import in_words

MAX_LISTED = 40
MAX_SHEETS = 4
SHEET_SIDE = 1024
NO_LICENSE, NO_CREATOR = "no license recorded", "creator not recorded"
SET_ASIDE = "set aside"


@dataclass(frozen=True)
class Excerpt:
    """The first rows of a list, its total length, and counts by reason."""

    rows: list[tuple[str, ...]]
    total: int
    reasons: list[tuple[str, int]]


@dataclass(frozen=True)
class License:
    """Objects under one license: their number, and all (creator, names), since some licenses require attribution."""

    text: str
    n: int
    creators: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class ContactSheets:
    """The first contact sheets of one data set as data URIs, and their total number."""

    uris: list[str]
    total: int
    folder: str


def objects_by_split(tree: Results, ablation: Ablation) -> dict[str, int]:
    """Number of an ablation's objects by split, and under `SET_ASIDE` of those that ingest or fit quarantined.

    Raises OSError, ValueError, TypeError or KeyError if the manifest or the options of the split cannot be read.
    """
    ids = ablation.stages
    manifest = Manifest.load(tree.folder("ingest", ids["ingest"]) / "manifest.jsonl")
    splits = manifest.splits(SplitOptions(**ablation.config.get("data", {}).get("split", {})))
    rows = [row for stage in CHUNKED_BY_OBJECTS if stage in ids for row in tree.chunks(stage, ids[stage])]
    lost = {row["id"] for row in rows if row.get("status") == "quarantined"}
    return dict(Counter(SET_ASIDE if name in lost else split for name, split in splits.items()))


def quarantined(tree: Results, ablations: list[Ablation]) -> Excerpt:
    """Objects that ingest or fit quarantined, with reasons."""
    rows: list[tuple[str, ...]] = []
    n_all = len(ablations)
    for stage in CHUNKED_BY_OBJECTS:
        for identity, names in shared_ids(ablations, stage).items():
            quarantined_rows = [row for row in tree.chunks(stage, identity) if row.get("status") == "quarantined"]
            rows += [
                (row["id"], stage, row.get("reason") or "no reason given", in_words(names, n_all))
                for row in quarantined_rows
            ]
    reasons = Counter(row[2].split(":")[0] for row in rows).most_common()
    return Excerpt(rows[:MAX_LISTED], len(rows), reasons)


def below_minimum(tree: Results, ablations: list[Ablation]) -> Excerpt:
    """Fits below the configured minimum PSNR, worst first."""
    rows: list[tuple[str, ...]] = []
    for identity, names in shared_ids(ablations, "fit").items():
        weak_fits = [row for row in tree.chunks("fit", identity) if row.get("below_minimum")]
        users = in_words(names, len(ablations))
        weak_fits.sort(key=lambda row: row.get("psnr") or 0.0)
        rows += [(row["id"], _decibel(row.get("psnr")), str(row.get("steps", "–")), users) for row in weak_fits]
    return Excerpt(rows[:MAX_LISTED], len(rows), [])


def clipped(tree: Results, ablations: list[Ablation]) -> list[str]:
    """How many fitted Gaussians leave the ranges of the representations that ablations use, one sentence a fit."""
    used = {ablation.config.get("representation", {}).get("kind") for ablation in ablations}
    return [
        sentence if len(names) == len(ablations) else f"{in_words(names, len(ablations))}: {sentence}"
        for identity, names in shared_ids(ablations, "fit").items()
        for kind, sentence in of_fits(tree.chunks("fit", identity)).items()
        if kind in used
    ]


def licenses(tree: Results, ablations: list[Ablation]) -> list[License]:
    """Objects by license and creator, from the manifests; empty if these record neither."""
    objects: dict[str, dict[str, list[str]]] = {}
    for identity in shared_ids(ablations, "ingest"):
        for entry in _manifest(tree, identity):
            if entry.license or entry.creator:
                names = objects.setdefault(entry.license or NO_LICENSE, {}).setdefault(entry.creator or NO_CREATOR, [])
                names.append(entry.name or entry.id)
    return [
        License(text, sum(map(len, creators.values())), sorted(creators.items()))
        for text, creators in sorted(objects.items())
    ]


def copies(tree: Results, ablations: list[Ablation]) -> int:
    """Number of files that were skipped as copies of other files."""
    return sum(len(entry.copies) for identity in shared_ids(ablations, "ingest") for entry in _manifest(tree, identity))


def contact_sheets(tree: Results, ablations: list[Ablation]) -> list[ContactSheets]:
    """The first contact sheets of every data set."""
    sheets = []
    for identity in shared_ids(ablations, "ingest"):
        folder = tree.folder("ingest", identity)
        files = sorted(folder.glob("chunk-*.png"))
        uris = []
        for file in files[:MAX_SHEETS]:
            try:
                uris.append(image_uri(checked(file), SHEET_SIDE))
            except OSError as error:
                tree.note(f"{file.relative_to(tree.root)} cannot be read ({error})")
        if uris:
            sheets.append(ContactSheets(uris, len(files), str(folder.relative_to(tree.root.parent))))
    return sheets


def _manifest(tree: Results, identity: str) -> tuple[ObjectEntry, ...]:
    path = tree.folder("ingest", identity) / "manifest.jsonl"
    try:
        return Manifest.load(path).objects
    except (OSError, UserError) as error:
        if isinstance(error, UserError) and stage_folder(path) is not None:
            raise
        tree.note(f"{path.relative_to(tree.root)} cannot be read ({error})")
        return ()


def _decibel(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} dB"
