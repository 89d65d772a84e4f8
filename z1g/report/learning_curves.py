"""Learning curves: a metric against the number of objects, steps, or another option that a set of ablations names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from z1g.data.manifest import Manifest, SplitOptions
from z1g.report.collect import Ablation, Results, flatten
from z1g.report.importance import short_names
from z1g.report.slices import interval_of_mean
from z1g.report.studies import Run, Study, label, study_of

OBJECTS = "objects"
"""The `x` that counts the objects that a run was trained on."""


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
    """Sets of ablations with an `x` of at least two values, as one study each, with `x` and `group` of every run."""
    plans = {ablation.name: tree.plan(ablation.name) for ablation in ablations}
    groups: dict[str, list[Ablation]] = {}
    for ablation in ablations:
        plan = plans[ablation.name]
        if plan.get("x") is not None:
            groups.setdefault(str(plan.get("set") or plan.get("study") or ablation.name), []).append(ablation)
    curves = []
    for name, members in groups.items():
        places = {member.name: _place(tree, member, plans[member.name]["x"]) for member in members}
        placed = [member for member in members if places[member.name] is not None]
        if len({places[member.name] for member in placed}) > 1:
            named = [x for member in placed if isinstance(x := plans[member.name]["x"], str)]
            labels = _labels({member.name: _own(member, plans[member.name]) for member in placed})
            study = study_of(tree, name, placed)
            runs = [replace(run, x=places[run.name], group=labels[run.name]) for run in study.runs]
            curves.append(replace(study, runs=runs, x_label=_axis(named)))
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


def _axis(named: Sequence[str]) -> str:
    return "training objects" if not named or named[0] == OBJECTS else named[0]


def _place(tree: Results, ablation: Ablation, x: Any) -> float | None:
    """Where a run is on the axis: the number itself, the value or length of an option, or the number of objects."""
    if isinstance(x, int | float) and not isinstance(x, bool):
        return float(x)
    if x == OBJECTS:
        return _training_objects(tree, ablation)
    value: Any = ablation.config
    for part in str(x).split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, list):
        return float(len(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    tree.note(f"ablation {ablation.name} has no number at {x}, the x of its set; learning curves leave it out")
    return None


def _training_objects(tree: Results, ablation: Ablation) -> float | None:
    """Objects of the training split that neither ingest nor fit quarantined."""
    ids = ablation.stages
    if "ingest" not in ids:
        tree.note(f"ablation {ablation.name} has no ingest stage to count the objects of; learning curves leave it out")
        return None
    path = tree.folder("ingest", ids["ingest"]) / "manifest.jsonl"
    try:
        splits = Manifest.load(path).splits(SplitOptions(**ablation.config.get("data", {}).get("split", {})))
    except (OSError, ValueError, TypeError, KeyError) as error:
        tree.note(f"{path.relative_to(tree.root)} cannot be read ({error})")
        return None
    rows = [row for stage in ("ingest", "fit") if stage in ids for row in tree.chunks(stage, ids[stage])]
    lost = {row["id"] for row in rows if row.get("status") == "quarantined"}
    return float(sum(split == "train" and name not in lost for name, split in splits.items()))


def _own(ablation: Ablation, plan: dict[str, Any]) -> dict[str, Any]:
    """What a run sets besides x and random seeds. If x counts objects, the data section belongs to x."""
    point = plan.get("point") or {}
    options = {**flatten(ablation.differences), **point}
    x = plan["x"]
    by_objects = x == OBJECTS or not isinstance(x, str)
    return {
        key: value
        for key, value in options.items()
        if key != x and key.split(".")[-1] != "seed" and not (by_objects and key.startswith("data."))
    }


def _labels(options: dict[str, dict[str, Any]]) -> dict[str, str]:
    """A label for each run from the options that differ between runs; empty if none does."""
    keys = dict.fromkeys(key for own in options.values() for key in own)
    varied = [key for key in keys if len({label(own.get(key, ...)) for own in options.values()}) > 1]
    names = short_names(varied)
    return {
        name: ", ".join(f"{names[key]}={label(own[key])}" for key in varied if key in own) or ("base" if varied else "")
        for name, own in options.items()
    }
