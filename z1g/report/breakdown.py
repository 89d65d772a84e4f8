"""Numbers broken down: by how far a view is turned from the condition, by object, by what they cost."""

from dataclasses import dataclass

from z1g.report.collect import Ablation, Measurements, Results, shared_ids
from z1g.report.cost import COSTS, JOULES_PER_KWH, cost, cost_text, spent
from z1g.report.curves import Series, chart
from z1g.report.summary import Summary, decimals
from z1g.report.tables import number

BIN_DEG = 30
MAX_OBJECTS = 200


@dataclass(frozen=True)
class ObjectRow:
    """One object's values of one metric, an (ablation's text, key) each; None where it has none."""

    name: str
    split: str
    cells: list[tuple[str, float | None]]


def azimuth_means(measured: Measurements, metric: str, split: str, source: str) -> list[tuple[float, float]]:
    """(middle of the bin in degrees, mean over objects of each object's mean) of views by azimuth distance."""
    bins: dict[int, dict[str, list[float]]] = {}
    for row in measured.rows:
        if (row["split"], row["source"]) == (split, source) and None not in (row.get(metric), row.get("azimuth_deg")):
            place = min(int(row["azimuth_deg"] // BIN_DEG), 180 // BIN_DEG - 1)
            bins.setdefault(place, {}).setdefault(row["object"], []).append(row[metric])
    means = {place: [sum(v) / len(v) for v in found.values()] for place, found in bins.items()}
    return [((place + 0.5) * BIN_DEG, sum(v) / len(v)) for place, v in sorted(means.items())]


def azimuth_charts(tree: Results, ablations: list[Ablation], summary: Summary) -> list[tuple[str, str]]:
    """Heading and SVG for each metric of views: samples by azimuth distance from the condition, a line an ablation."""
    measured = [(a, tree.measurements(a.stages["metrics"])) for a in ablations if "metrics" in a.stages]
    splits = {row["split"] for _, found in measured for row in found.rows}
    split = "test" if "test" in splits else "train"
    charts = []
    for metric, info in summary.metrics.items():
        if info.scope != "view":
            continue
        series = [
            Series(ablation.name, azimuth_means(found, metric, split, "sampled"), index)
            for index, (ablation, found) in enumerate(measured)
        ]
        svg = chart(series, "azimuth from the condition, degrees", info.label)
        charts += [(info.heading, svg)] if svg else []
    return charts


def by_object(tree: Results, ablations: list[Ablation], summary: Summary) -> dict[str, list[ObjectRow]]:
    """Samples' values of every object, by metric; of very many objects the first."""
    measured = [tree.measurements(a.stages["metrics"]) if "metrics" in a.stages else Measurements() for a in ablations]
    splits = {row["object"]: row["split"] for found in measured for row in found.rows}
    tables = {}
    for metric, info in summary.metrics.items():
        if info.scope == "set":
            continue
        digits = decimals(summary.merged, metric)
        values = [
            {
                name: value
                for split in ("test", "train")
                for name, value in found.object_values(metric, split, "sampled").items()
            }
            if metric in found.metrics
            else {}
            for found in measured
        ]
        tables[metric] = [
            ObjectRow(name, split, [(_cell(v.get(name), digits), v.get(name)) for v in values])
            for name, split in sorted(splits.items(), key=lambda item: (item[1], item[0]))[:MAX_OBJECTS]
        ]
    return tables


def _cell(value: float | None, digits: int) -> str:
    return "–" if value is None else number(value, digits)


def costs(tree: Results, ablations: list[Ablation]) -> list[tuple[str, str, str, list[str]]]:
    """(label, unit, definition, each ablation's value) of every cost; stages that ablations share count in each."""
    found = []
    for ablation in ablations:
        rows = tree.measurements(ablation.stages["metrics"]).rows if "metrics" in ablation.stages else []
        sampled = {row["object"] for row in rows if row["source"] == "sampled"}
        found.append(cost(tree, ablation.stages, len(sampled)).values)
    return [
        (info.label, info.unit, info.reference, [cost_text(values.get(name)) for values in found])
        for name, info in COSTS.items()
    ]


def energies(tree: Results, ablations: list[Ablation]) -> dict[str, tuple[str, str]]:
    """GPU hours and GPU energy of every stage id, in words; `unknown` where its jobs did not record them."""
    texts = {}
    for stage in {stage for ablation in ablations for stage in ablation.stages}:
        for identity in shared_ids(ablations, stage):
            total = spent(tree.jobs(stage, identity))
            seconds, joules = (total.gpu_seconds, total.gpu_joules) if total else (None, None)
            texts[identity] = (_with_unit(seconds, 3600.0, "h"), _with_unit(joules, JOULES_PER_KWH, "kWh"))
    return texts


def _with_unit(value: float | None, unit_size: float, unit: str) -> str:
    return "unknown" if value is None else "none" if value == 0 else f"{cost_text(value / unit_size)} {unit}"
