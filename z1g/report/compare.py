"""Compares results: means, paired differences to the first result, and whether the test sets are the same."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.names import did_you_mean
from z1g.core.sealed import Damaged, read_sealed
from z1g.report.collect import KEYS, Ablation, Measurements, MetricInfo, Results, differences
from z1g.report.cost import cost
from z1g.report.summary import Figure, figure

MAX_NAMED = 5
DIGESTED = ("ingest", "autodecoder", "unet", "infer")


@dataclass(frozen=True)
class Contender:
    """One result: its folder, measurements, and if known its stage ids, configuration, costs and digests.

    `digests` has one digest per stage, of all outputs that its jobs recorded.
    """

    name: str
    folder: Path
    measured: Measurements
    stages: dict[str, str]
    config: dict[str, Any]
    costs: dict[str, float | None]
    digests: dict[str, str]


@dataclass(frozen=True)
class Entry:
    """A metric of one result: its mean, and its paired difference to the first result (None for the first)."""

    value: Figure | None
    difference: Figure | None


@dataclass(frozen=True)
class Comparison:
    """A comparison. `entries[metric][i]` belongs to `contenders[i]`; `config` has the options that differ."""

    split: str
    source: str
    n_objects: int
    contenders: list[Contender]
    metrics: dict[str, MetricInfo]
    entries: dict[str, list[Entry]]
    config: dict[str, list[Any]]
    notes: list[str] = field(default_factory=list)


def compare(results: Path, targets: Sequence[str], split: str, source: str) -> Comparison:
    """Compare ablations, metrics ids or result files. Raises UserError if they were measured on different sets."""
    tree = Results(results)
    contenders = [find_contender(tree, target) for target in targets]
    for contender in contenders:
        if not any((row["split"], row["source"]) == (split, source) for row in contender.measured.rows):
            available = sorted({f"{row['split']}/{row['source']}" for row in contender.measured.rows})
            raise UserError(
                f"{contender.name} has no rows of {split}/{source}; it has {', '.join(available) or 'none at all'}"
            )
    first = contenders[0]
    for other in contenders[1:]:
        _same_test_set(first, other, split, source)
    metrics: dict[str, MetricInfo] = {}
    for contender in contenders:
        metrics |= {name: info for name, info in contender.measured.metrics.items() if name not in metrics}
    entries = {name: [_entry(first, contender, name, split, source) for contender in contenders] for name in metrics}
    entries = {name: row for name, row in entries.items() if any(entry.value for entry in row)}
    n_objects = len({row["object"] for row in first.measured.rows if row["split"] == split})
    options = (
        differences([contender.config for contender in contenders])
        if all(contender.config for contender in contenders)
        else {}
    )
    notes = [
        f"{contender.name}: {info.label} is missing: {why}"
        for contender in contenders
        for info, why in _missing(contender)
    ]
    notes += [note for note in tree.notes if "stage.json" not in note]
    measured_metrics = {name: metrics[name] for name in entries}
    return Comparison(split, source, n_objects, contenders, measured_metrics, entries, options, notes)


def find_contender(tree: Results, target: str) -> Contender:
    """Find a result by ablation name, metrics id, or path of `metrics.jsonl` or its folder.

    Raises UserError if there is no such result or if it has not been measured.
    """
    if target in tree.planned():
        (ablation,) = tree.ablations([target])
        if "metrics" not in ablation.stages:
            raise UserError(f"ablation {target} has no metrics stage")
        return _contender(tree, target, tree.folder("metrics", ablation.stages["metrics"]), ablation)
    path = Path(target)
    for folder in (path.parent if path.is_file() else path, tree.folder("metrics", target)):
        if (folder / "metrics.jsonl").is_file():
            return _contender(Results(_root(folder, tree)), target, folder, None)
    ids = [file.parent.name for file in tree.root.glob("metrics/*/metrics.jsonl")]
    hint = did_you_mean(target, [*tree.planned(), *ids])
    raise UserError(f"{target}: no ablation or metrics id in {tree.root}, and no file metrics.jsonl{hint}")


def _contender(tree: Results, name: str, folder: Path, ablation: Ablation | None) -> Contender:
    if not (folder / "metrics.jsonl").is_file():
        raise UserError(f"{name} has not been measured yet: {folder}/metrics.jsonl does not exist")
    measured = tree.measurements_in(folder)
    bad = next((row for row in measured.rows if not {*KEYS[:4]} <= set(row)), None)
    if not measured.rows or bad is not None:
        raise UserError(f"{folder}/metrics.jsonl: no rows, or rows without {', '.join(KEYS[:4])}")
    stages = ablation.stages if ablation else _stages(folder)
    config = ablation.config if ablation else _config(tree, stages)
    sampled = {row["object"] for row in measured.rows if row["source"] == "sampled"}
    costs = cost(tree, stages, len(sampled)).values if stages else {}
    digests = {
        stage: digest for stage in DIGESTED if stage in stages and (digest := _digest(tree, stage, stages[stage]))
    }
    return Contender(name, folder, measured, stages, config, costs, digests)


def _digest(tree: Results, stage: str, identity: str) -> str | None:
    """One digest of all files that a stage's jobs recorded, or None if they recorded none."""
    outputs = {
        name: output["sha256"] for record in tree.jobs(stage, identity) for name, output in record["outputs"].items()
    }
    return hashlib.sha256(json.dumps(outputs, sort_keys=True).encode()).hexdigest()[:10] if outputs else None


def _root(folder: Path, tree: Results) -> Path:
    """The results folder of a metrics folder `<results>/metrics/<id>`."""
    return folder.parent.parent if folder.parent.name == "metrics" else tree.root


def _stages(folder: Path) -> dict[str, str]:
    try:
        record = read_sealed(folder / "stage.json", f"metrics/{folder.resolve().name}")
        return {**record["upstream"], record["stage"]: record["id"]}
    except Damaged as error:
        raise UserError(f"{folder}/stage.json cannot be used: {error}; start `snakemake` again") from error
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _config(tree: Results, stages: dict[str, str]) -> dict[str, Any]:
    """The merged configuration slices of all stages, or an empty dict if one cannot be read."""
    merged: dict[str, Any] = {}
    for stage, identity in stages.items():
        try:
            folder = tree.folder(stage, identity)
            _join(merged, read_sealed(folder / "stage.json", f"{stage}/{identity}")["config"])
        except Damaged as error:
            raise UserError(f"{folder}/stage.json cannot be used: {error}; start `snakemake` again") from error
        except (OSError, ValueError, KeyError, TypeError):
            return {}
    return merged


def _join(target: dict[str, Any], source: dict[str, Any]) -> None:
    for key, value in source.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _join(target[key], value)
        else:
            target[key] = value


def _same_test_set(first: Contender, other: Contender, split: str, source: str) -> None:
    views = [_views(contender.measured, split, source) for contender in (first, other)]
    problems = []
    for own, opposite, name in ((views[0], views[1], first.name), (views[1], views[0], other.name)):
        if missing := sorted(own.keys() - opposite.keys()):
            problems.append(f"only in {name}: {_named(missing)}")
    common = sorted(views[0].keys() & views[1].keys())
    if other_views := [name for name in common if views[0][name] != views[1][name]]:
        problems.append(f"measured on other views: {_named(other_views)}")
    truth = [contender.measured.truth for contender in (first, other)]
    if other_images := [n for n in common if n in truth[0] and n in truth[1] and truth[0][n] != truth[1][n]]:
        problems.append(f"with other ground-truth images: {_named(other_images)}")
    if problems:
        raise UserError(
            f"{first.name} and {other.name} were measured on different {split} sets and cannot be compared; "
            + "; ".join(problems)
        )


def _views(measured: Measurements, split: str, source: str) -> dict[str, set[int]]:
    views: dict[str, set[int]] = {}
    for row in measured.rows:
        if (row["split"], row["source"]) == (split, source):
            views.setdefault(row["object"], set()).add(row["view"])
    return views


def _named(names: list[str]) -> str:
    n_hidden = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {n_hidden} more" if n_hidden > 0 else "")


def _entry(first: Contender, contender: Contender, metric: str, split: str, source: str) -> Entry:
    info = contender.measured.metrics.get(metric)
    if info is None:
        return Entry(None, None)
    if info.scope == "set":
        value, base = (c.measured.set_value(metric, split, source) for c in (contender, first))
        n = len(_views(contender.measured, split, source))
        mean = None if value is None else Figure(value, None, None, n)
        gap = None if value is None or base is None else Figure(value - base, None, None, n)
        return Entry(mean, None if contender is first else gap)
    values = contender.measured.object_values(metric, split, source)
    mean = figure([values[name] for name in sorted(values)]) if values else None
    if contender is first or metric not in first.measured.metrics:
        return Entry(mean, None)
    return Entry(mean, paired(first.measured.object_values(metric, split, source), values))


def paired(base: dict[str, float], values: dict[str, float]) -> Figure | None:
    """Mean difference to `base` over common objects with its 95 % bootstrap interval; None without common objects."""
    common = sorted(base.keys() & values.keys())
    return figure([values[name] - base[name] for name in common]) if common else None


def clear(difference: Figure | None) -> bool:
    """Whether the interval of a difference excludes zero."""
    if difference is None or difference.low is None or difference.high is None:
        return False
    return difference.low > 0 or difference.high < 0


def better(difference: Figure, info: MetricInfo) -> bool | None:
    """Whether a difference is an improvement; None if it is zero or the metric has no direction."""
    if info.higher_is_better is None or math.isclose(difference.value, 0, abs_tol=1e-15):
        return None
    return (difference.value > 0) == info.higher_is_better


def _missing(contender: Contender) -> list[tuple[MetricInfo, str]]:
    return [(contender.measured.metrics[name], why) for name, why in contender.measured.missing.items()]
