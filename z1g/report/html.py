"""A self-contained HTML report: styles, scripts, charts and images are embedded, nothing is fetched."""

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from z1g.core.names import counted
from z1g.core.stages import STAGE_NAMES
from z1g.render.web import script
from z1g.report import breakdown, data, sections
from z1g.report.collect import Ablation, Results, shared_ids
from z1g.report.images import Gallery
from z1g.report.published import HEADING, read_published
from z1g.report.splats import Splats
from z1g.report.study_page import Studies, studies_of
from z1g.report.summary import SPLIT_NAMES, SPLITS, Summary, best, decimals, in_words, summarize
from z1g.report.tables import notes, number, source_label
from z1g.report.vega import library
from z1g.report.verdict_tables import verdict_tables


@dataclass(frozen=True)
class Cell:
    """A table cell: displayed text and sort key."""

    value: str
    interval: str
    key: float | None
    best: bool


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    source: str
    label: str
    ablations: str
    n: int
    seeds: int
    cells: list[Cell]


def page(tree: Results, names: list[str], studies: Studies | None = None) -> str:
    """Return the report on some ablations of a results folder as HTML. Raises UserError for an unknown name.

    `studies` are those of the ablations; they are read if they are not given.
    """
    planned = tree.ablations(names)
    studies = studies_of(tree, planned) if studies is None else studies
    ablations = studies.representatives(planned)
    summary = summarize(tree, studies.of_best_arms(planned))
    gallery = Gallery(tree, ablations, summary)
    splats, compared = Splats(tree, ablations), gallery.compared()
    objects = {item.name: item.split for item in compared}
    times, columns = sections.times(tree, ablations), breakdown.columns(tree, ablations, summary)
    commits, packages = sections.versions(tree, ablations)
    context: dict[str, Any] = {
        "ablations": ablations,
        "summary": summary,
        "facts": _facts(ablations, gallery, commits, summary),
        "headline": sections.headline(summary),
        "n_planned": len(planned),
        "studies": studies.sections(),
        "chart_library": "" if studies.empty else library(),
        "splits": SPLITS,
        "split_names": SPLIT_NAMES,
        "interval_charts": sections.interval_charts(summary),
        "tables": _tables(summary),
        "table_notes": notes(summary),
        "published": read_published(),
        "published_heading": HEADING,
        "peer_costs": breakdown.peer_costs(summary),
        "verdicts": verdict_tables(summary),
        "compared": compared,
        "attributes": splats.attributes(objects),
        "models": splats.models(objects),
        "viewer": {"frame": splats.frame(), "fov": splats.camera().fov_y_deg, "radius": splats.camera().radius},
        "splat_script": script(),
        "azimuths": breakdown.azimuth_charts(columns, summary),
        "legend": [(name, sections.line_style(i)) for i, name in enumerate(breakdown.line_names(columns))],
        "columns": [name for name, _ in columns],
        "by_object": breakdown.by_object(columns, summary),
        "thumbnail": gallery.thumbnail,
        "costs": breakdown.costs(tree, ablations),
        "energies": breakdown.energies(tree, ablations),
        "resolved": sections.resolved(ablations),
        "n_objects": len(gallery.splits),
        "image_metric": gallery.info.label,
        "extremes": sections.extremes(tree, ablations, summary),
        "curves": sections.curves(tree, ablations),
        "times": times,
        "job_time": _job_time(times, ablations),
        "quarantined": data.quarantined(tree, ablations),
        "below_minimum": data.below_minimum(tree, ablations),
        "clipped": data.clipped(tree, ablations),
        "licenses": data.licenses(tree, ablations),
        "copies": data.copies(tree, ablations),
        "sheets": data.contact_sheets(tree, ablations),
        "config": sections.config_table(ablations),
        "ids": _ids(ablations),
        "commits": commits,
        "packages": packages,
        "notes": tree.notes,
    }
    return _environment().get_template("template.html.j2").render(context)


def _environment() -> Environment:
    folder = resources.files("z1g.report")
    loader = FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["duration"] = sections.duration
    environment.filters["in_words"] = in_words
    return environment


def _facts(ablations: list[Ablation], gallery: Gallery, commits: list[str], summary: Summary) -> list[tuple[str, str]]:
    splits = list(gallery.splits.values())
    counts = [
        f"{splits.count(split)} {SPLIT_NAMES.get(split, split)}"
        for split in SPLITS
        if splits and (split in splits or split != "test_unseen")
    ]
    bases = list(dict.fromkeys(ablation.base for ablation in ablations if ablation.base))
    left_out = f", {counted(len(summary.budget.left_out), 'run')} left out by the budget" if summary.budget else ""
    return [
        ("ablations", f"{len(ablations)}{left_out}"),
        ("scale", ", ".join(bases) or "–"),
        ("objects measured", ", ".join(counts) or "none"),
        ("commit", ", ".join(commit[:8] for commit in commits) or "not recorded"),
        ("made", datetime.now(UTC).strftime("%-d %B %Y")),
    ]


def _tables(summary: Summary) -> dict[str, list[Line]]:
    rows, marked = summary.merged, best(summary.merged, summary.metrics)
    digits = {metric: decimals(rows, metric) for metric in summary.metrics}
    tables: dict[str, list[Line]] = {}
    for index, row in enumerate(rows):
        cells = []
        for metric in summary.metrics:
            figure, places = row.figures.get(metric), digits[metric]
            if figure is None:
                cells.append(Cell("–", "", None, False))
                continue
            ends = [number(end, places) for end in (figure.low, figure.high) if end is not None]
            value = number(figure.value, places)
            cells.append(Cell(value, " – ".join(ends), figure.value, (index, metric) in marked))
        line = Line(row.source, source_label(row), summary.served(row), row.n, row.seeds, cells)
        tables.setdefault(row.split, []).append(line)
    return tables


def _job_time(times: list[sections.StageTime], ablations: list[Ablation]) -> dict[str, float]:
    """Job seconds of the whole set, with and without sharing stages, and numbers of stage folders and of their uses."""
    return {
        "shared": sum(time.seconds for time in times),
        "alone": sum(time.seconds * len(time.ablations) for time in times),
        "folders": sum(len(shared_ids(ablations, stage)) for stage in STAGE_NAMES),
        "uses": sum(len(ablation.stages) for ablation in ablations),
    }


def _ids(ablations: list[Ablation]) -> list[tuple[str, list[tuple[str, bool]]]]:
    """Ids of each stage by ablation, and whether an earlier ablation has the same id."""
    table = []
    for stage in STAGE_NAMES:
        seen: set[str] = set()
        cells = []
        for ablation in ablations:
            identity = ablation.stages.get(stage, "–")
            cells.append((identity, identity in seen))
            seen.add(identity)
        table.append((stage, cells))
    return table
