"""Learning curves: a metric against the number of objects, steps, or another option that a set of ablations names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from z1g.config.replicates import SEED_NAMES
from z1g.report.collect import Ablation, Results, flatten
from z1g.report.data import objects_by_split
from z1g.report.importance import short_names
from z1g.report.slices import interval_of_mean
from z1g.report.studies import Run, Study, label, study_of

OBJECTS = "objects"
"""The `x` that counts the objects that a run was trained on, alone or at the end of a label: `training objects`."""
REPLICATED = (*SEED_NAMES, "fold", "folds")
"""Options in which replicates of one arm differ."""


@dataclass(frozen=True)
class CurvePoint:
    """Mean of `n` runs with equal `x` of one curve, with a 95 % interval over them if there are several."""

    group: str
    x: float
    mean: float
    low: float | None
    high: float | None
    n: int


def read_curves(tree: Results, ablations: Sequence[Ablation]) -> list[Study]:
    """Sets, or files with an `x` of their own, as one study each, with `x` and `group` of every run.

    Curves with a single place on the axis are left out.
    """
    plans = {ablation.name: tree.plan(ablation.name) for ablation in ablations}
    members: dict[tuple[str, str], list[Ablation]] = {}
    for ablation in ablations:
        plan = plans[ablation.name]
        if plan.get("x") is not None:
            name = str(plan.get("set") or plan.get("study") or ablation.name)
            members.setdefault((name, _axis(plan["x"])), []).append(ablation)
    curves = []
    for (name, axis), runs in members.items():
        places = {run.name: place for run in runs if (place := _place(tree, run, plans[run.name]["x"])) is not None}
        placed = [run for run in runs if run.name in places]
        own = {run.name: _own(run, plans[run.name]) for run in placed}
        labels = _labels(own)
        if followers := _files_with_followers(own, plans, places):
            plain = {
                name: str(plans[name]["study"]) for name in own if labels[name] == "base" and plans[name].get("study")
            }
            labels |= plain | followers
        places_of: dict[str, set[float]] = {}
        for run in placed:
            places_of.setdefault(labels[run.name], set()).add(places[run.name])
        shown = [run for run in placed if len(places_of[labels[run.name]]) > 1]
        if shown:
            study = study_of(tree, name, shown)
            with_places = [replace(run, x=places[run.name], group=labels[run.name]) for run in study.runs]
            curves.append(replace(study, runs=with_places, x_label=axis))
    return curves


def curve(runs: Sequence[Run], metric: str) -> list[CurvePoint]:
    """Points of all curves of a metric by group and x. Runs that were pruned or have no value are left out."""
    values: dict[tuple[str, float], list[float]] = {}
    for run in runs:
        if run.x is not None and run.pruned is None and metric in run.values:
            values.setdefault((run.group, run.x), []).append(run.values[metric])
    points = []
    for (group, x), numbers in sorted(values.items()):
        mean, low, high = interval_of_mean(numbers) or (numbers[0], None, None)
        points.append(CurvePoint(group, x, mean, low, high, len(numbers)))
    return points


def _axis(x: Any) -> str:
    """Label of the axis."""
    return x if isinstance(x, str) and x != OBJECTS else "training objects"


def _place(tree: Results, ablation: Ablation, x: Any) -> float | None:
    """Where a run is on the axis: the number itself, the value or length of an option, or the number of objects."""
    if not isinstance(x, str):
        return _number(x)
    value: Any = ablation.config
    for part in x.split("."):
        value = value.get(part, ...) if isinstance(value, dict) else ...
    if value is ... and _counts_objects(x):
        return _training_objects(tree, ablation)
    place = float(len(value)) if isinstance(value, list) else _number(value)
    if place is None:
        tree.note(f"ablation {ablation.name} has no number at {x}, its x; learning curves leave it out")
    return place


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _counts_objects(x: Any) -> bool:
    """Whether x is a number of objects, or a label that says so, and no key path."""
    return not isinstance(x, str) or x == OBJECTS or x.endswith(f" {OBJECTS}")


def _training_objects(tree: Results, ablation: Ablation) -> float | None:
    """Objects of the training split that neither ingest nor fit quarantined."""
    ids = ablation.stages
    if "ingest" not in ids:
        tree.note(f"ablation {ablation.name} has no ingest stage to count the objects of; learning curves leave it out")
        return None
    try:
        return float(objects_by_split(tree, ablation).get("train", 0))
    except (OSError, ValueError, TypeError, KeyError) as error:
        path = tree.folder("ingest", ids["ingest"]) / "manifest.jsonl"
        tree.note(f"{path.relative_to(tree.root)} cannot be read ({error})")
        return None


def _own(ablation: Ablation, plan: dict[str, Any]) -> dict[str, Any]:
    """What a run sets besides x and what replicates differ in. If x counts objects, the data section belongs to x."""
    options = {**flatten(ablation.differences), **(plan.get("point") or {})}
    x = plan["x"]
    return {
        key: value
        for key, value in options.items()
        if key != x and key.split(".")[-1] not in REPLICATED and not (_counts_objects(x) and key.startswith("data."))
    }


def _files_with_followers(
    own: dict[str, dict[str, Any]], plans: dict[str, dict[str, Any]], places: dict[str, float]
) -> dict[str, str]:
    """Labels of the runs of files in which other options follow x, as steps follow objects at equal passes: one curve a
    file, named after it.
    """
    files: dict[str, list[str]] = {}
    for name in own:
        if plans[name].get("study"):
            files.setdefault(str(plans[name]["study"]), []).append(name)
    labels = {}
    for file, names in files.items():
        for key in dict.fromkeys(key for name in names for key in own[name]):
            values = {(places[name], label(own[name].get(key, ...))) for name in names}
            n_places, n_values = (len({pair[i] for pair in values}) for i in (0, 1))
            if n_values > 1 and len(values) == n_places:
                labels.update(dict.fromkeys(names, file))
    return labels


def _labels(options: dict[str, dict[str, Any]]) -> dict[str, str]:
    """A label for each run from the options that differ between runs; empty if none does."""
    keys = dict.fromkeys(key for own in options.values() for key in own)
    varied = [key for key in keys if len({label(own.get(key, ...)) for own in options.values()}) > 1]
    names = short_names(varied)
    return {
        name: ", ".join(f"{names[key]}={label(own[key])}" for key in varied if key in own) or ("base" if varied else "")
        for name, own in options.items()
    }
