"""Metrics by azimuth from the condition view and by object, and costs by stage."""

from dataclasses import dataclass
from itertools import product

from z1g.core.names import counted
from z1g.report.collect import Ablation, Measurements, Results, shared_ids
from z1g.report.cost import COSTS, JOULES_PER_KWH, cost, cost_text, stage_cost
from z1g.report.curves import Series, chart
from z1g.report.peers import PEER_COSTS
from z1g.report.peers import costs as costs_of_peer
from z1g.report.summary import SPLITS, Summary, decimals, heading, shown
from z1g.report.tables import number

BIN_DEG = 30
MAX_OBJECTS = 200


@dataclass(frozen=True)
class ObjectRow:
    """Values of one metric for one object: a (text, sort key) per column, with key None for a missing value."""

    name: str
    split: str
    cells: list[tuple[str, float | None]]


def azimuth_means(measured: Measurements, metric: str, split: str, source: str) -> list[tuple[float, float]]:
    """Mean metric by azimuth distance from the condition: a (bin center in degrees, mean) per non-empty bin.

    Views are averaged per object first, then over objects.
    """
    bins: dict[int, dict[str, list[float]]] = {}
    for row in measured.rows:
        if (row["split"], row["source"]) == (split, source) and None not in (row.get(metric), row.get("azimuth_deg")):
            index = min(int(row["azimuth_deg"] // BIN_DEG), 180 // BIN_DEG - 1)
            bins.setdefault(index, {}).setdefault(row["object"], []).append(row[metric])
    means = {index: [sum(v) / len(v) for v in objects.values()] for index, objects in bins.items()}
    return [((index + 0.5) * BIN_DEG, sum(v) / len(v)) for index, v in sorted(means.items())]


def columns(tree: Results, ablations: list[Ablation], summary: Summary) -> list[tuple[str, Measurements]]:
    """(name, measurements) of each ablation, then of each other system, whose rows are as those of samples."""
    ours = [
        (a.name, tree.measurements(a.stages["metrics"]) if "metrics" in a.stages else Measurements()) for a in ablations
    ]
    return ours + [(peer.label, peer.sampled().measured) for peer in summary.peers]


def azimuth_charts(measured: list[tuple[str, Measurements]], summary: Summary) -> list[tuple[str, str]]:
    """Charts (heading, SVG) of each per-view metric against azimuth distance, with one line per column."""
    splits = shown(row["split"] for _, measurements in measured for row in measurements.rows)
    charts = []
    for metric, split in product(summary.metrics, splits):
        info = summary.metrics[metric]
        if info.scope != "view":
            continue
        series = [
            Series(name, azimuth_means(measurements, metric, split, "sampled"), index)
            for index, (name, measurements) in enumerate(measured)
        ]
        svg = chart(series, "azimuth from the condition, degrees", info.label)
        charts += [(heading(info, split, splits), svg)] if svg else []
    return charts


def line_names(measured: list[tuple[str, Measurements]]) -> list[str]:
    """Names of the lines of `azimuth_charts`. One that lacks objects says so: its means are about the others."""
    splits = shown(row["split"] for _, measurements in measured for row in measurements.rows)
    objects = [{row["object"] for row in one.rows if row["split"] in splits} for _, one in measured]
    n = len(set().union(*objects))
    return [
        f"{name}: {len(own)} of {counted(n, 'object')}" if 0 < len(own) < n else name
        for (name, _), own in zip(measured, objects, strict=True)
    ]


def by_object(measured: list[tuple[str, Measurements]], summary: Summary) -> dict[str, list[ObjectRow]]:
    """Values of the samples by metric and object, for at most MAX_OBJECTS objects, with a cell per column."""
    splits = {row["object"]: row["split"] for _, measurements in measured for row in measurements.rows}
    tables = {}
    for metric, info in summary.metrics.items():
        if info.scope == "set":
            continue
        digits = decimals(summary.merged, metric)
        values = [
            {
                name: value
                for split in SPLITS
                for name, value in measurements.object_values(metric, split, "sampled").items()
            }
            if metric in measurements.metrics
            else {}
            for _, measurements in measured
        ]
        tables[metric] = [
            ObjectRow(name, split, [(_cell(v.get(name), digits), v.get(name)) for v in values])
            for name, split in sorted(splits.items(), key=lambda item: (item[1], item[0]))[:MAX_OBJECTS]
        ]
    return tables


def _cell(value: float | None, digits: int) -> str:
    return "–" if value is None else number(value, digits)


def costs(tree: Results, ablations: list[Ablation]) -> list[tuple[str, str, str, list[str]]]:
    """(label, unit, definition, values by ablation) of every cost. Shared stages count fully for each ablation."""
    values_by_ablation = []
    for ablation in ablations:
        rows = tree.measurements(ablation.stages["metrics"]).rows if "metrics" in ablation.stages else []
        sampled = {row["object"] for row in rows if row["source"] == "sampled"}
        values_by_ablation.append(cost(tree, ablation.stages, len(sampled)).values)
    return [
        (info.label, info.unit, info.reference, [cost_text(values.get(name)) for values in values_by_ablation])
        for name, info in COSTS.items()
    ]


def peer_costs(summary: Summary) -> tuple[list[str], list[tuple[str, str, list[str]]]]:
    """Names of other systems whose costs were given, and (label, unit, values by system) of each cost."""
    given = [peer for peer in summary.peers if peer.record.get("cost")]
    values = [costs_of_peer(peer.record) for peer in given]
    rows = [(info.label, info.unit, [cost_text(one[key]) for one in values]) for key, (_, info) in PEER_COSTS.items()]
    hardware = [(peer.record["cost"].get("hardware") or "unknown") for peer in given]
    return [peer.label for peer in given], [*rows, ("hardware", "", hardware)] if given else []


def energies(tree: Results, ablations: list[Ablation]) -> dict[str, tuple[str, str]]:
    """GPU hours and GPU energy of every stage id as text, `unknown` if the jobs did not record them."""
    texts = {}
    for stage in {stage for ablation in ablations for stage in ablation.stages}:
        for identity in shared_ids(ablations, stage):
            total = stage_cost(tree.jobs(stage, identity))
            seconds, joules = (total.gpu_seconds, total.gpu_joules) if total else (None, None)
            texts[identity] = (_with_unit(seconds, 3600.0, "h"), _with_unit(joules, JOULES_PER_KWH, "kWh"))
    return texts


def _with_unit(value: float | None, unit_size: float, unit: str) -> str:
    return "unknown" if value is None else "none" if value == 0 else f"{cost_text(value / unit_size)} {unit}"
