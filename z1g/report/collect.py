"""Reads a results folder. Missing files, and unreadable ones that no job recorded, are noted and do not raise.

A file that is not as its job recorded it raises UserError.
"""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from z1g.core.errors import UserError
from z1g.core.files import read_json, read_jsonl
from z1g.core.names import did_you_mean
from z1g.core.recorded import checked, damaged, read_record
from z1g.plan.records import read_config, read_plan

MEASURED = ("metrics.jsonl", "objects.jsonl")
KEYS = ("object", "split", "source", "view", "azimuth_deg")
"""Columns of `metrics.jsonl` and `objects.jsonl` that identify a row; all others are metrics."""

JsonRow = dict[str, Any]


@dataclass(frozen=True)
class Ablation:
    """A planned ablation.

    `stages` maps each stage to its id, `config` is the resolved configuration, `differences` has the options that the
    ablation's file sets. Runs with the same `arm` are replicates: they differ in `seed` (or `fold`) only. `replicated`
    has the stages that the seed changes, `pruned` says why a run was stopped early.
    """

    name: str
    description: str
    base: str
    stages: dict[str, str]
    config: dict[str, Any]
    differences: dict[str, Any]
    arm: str = ""
    seed: int | None = None
    fold: int | None = None
    replicated: tuple[str, ...] = ()
    pruned: dict[str, Any] | None = None


@dataclass(frozen=True)
class MetricInfo:
    """Description of a metric; `higher_is_better` is None if unknown."""

    label: str
    unit: str = ""
    higher_is_better: bool | None = None
    reference: str = ""
    scope: str = "view"
    """What a value belongs to: a `view`, an `object` or a `set`."""

    @property
    def heading(self) -> str:
        """Label, unit, and an arrow that points to better values."""
        arrow = {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]
        return f"{self.label}{f' ({self.unit})' if self.unit else ''}{arrow}"


@dataclass(frozen=True)
class Measurements:
    """Results of one metrics stage: `rows` with one row per object, view and source.

    `objects` has a row per object and source, `sets` one per split and source. `missing` has metrics without any value:
    {metric: reason}. `gaps` has objects without a value: {metric: {object: reason}}. `truth` has digests of the
    objects' test images.
    """

    rows: list[JsonRow] = field(default_factory=list)
    metrics: dict[str, MetricInfo] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    objects: list[JsonRow] = field(default_factory=list)
    sets: list[JsonRow] = field(default_factory=list)
    gaps: dict[str, dict[str, str]] = field(default_factory=dict)
    truth: dict[str, str] = field(default_factory=dict)

    def object_values(self, metric: str, split: str, source: str) -> dict[str, float]:
        """Values of the metric by object, or means over views. Objects without a value are left out."""
        per_view = self.metrics[metric].scope == "view"
        values: dict[str, list[float]] = {}
        for row in self.rows if per_view else self.objects:
            if (row["split"], row["source"]) == (split, source) and row.get(metric) is not None:
                values.setdefault(row["object"], []).append(row[metric])
        return {name: math.fsum(numbers) / len(numbers) for name, numbers in values.items()}

    def set_value(self, metric: str, split: str, source: str) -> float | None:
        """The metric's value of a whole set, or None."""
        candidates = (row.get(metric) for row in self.sets if (row["split"], row["source"]) == (split, source))
        return next((value for value in candidates if value is not None), None)


class Results:
    """A results folder. `notes` lists what is missing or could not be read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes: list[str] = []
        self.measurements = cache(self._measurements)
        self.chunks = cache(self._chunks)
        self.history = cache(self._history)

    def ablations(self, names: Iterable[str]) -> list[Ablation]:
        """The planned ablations of the given names. Raises UserError for an unknown name."""
        return [self._ablation(name) for name in names]

    def planned(self) -> list[str]:
        """Names of all planned ablations."""
        return sorted(path.parent.name for path in self.root.glob("ablations/*/plan.json"))

    def arms(self) -> dict[str, list[str]]:
        """Names of the planned ablations by arm. Plans that cannot be read are arms of their own."""
        members: dict[str, list[str]] = {}
        for name in self.planned():
            plan = self._json(self.root / "ablations" / name / "plan.json")
            arm = plan.get("arm") if isinstance(plan, dict) else None
            members.setdefault(arm or name, []).append(name)
        return members

    def _ablation(self, name: str) -> Ablation:
        folder = self.root / "ablations" / name
        if not (folder / "plan.json").is_file():
            raise UserError(f"{self.root}: no ablation {name!r} was planned here{did_you_mean(name, self.planned())}")
        plan = read_plan(folder)
        config = read_config(folder, plan)
        about = {key: plan.get(key) or "" for key in ("description", "base")}
        own = plan.get("differences") or {}
        return Ablation(
            name=name, **about, stages=plan["stages"], config=config, differences=own, arm=plan.get("arm") or name,
            seed=plan.get("seed"), fold=plan.get("fold"), replicated=tuple(plan.get("replicated") or ()),
            pruned=plan.get("pruned"),
        )  # fmt: skip

    def folder(self, stage: str, identity: str) -> Path:
        """The folder of a stage's results."""
        return self.root / stage / identity

    def _measurements(self, identity: str) -> Measurements:
        return self.measurements_in(self.folder("metrics", identity))

    def measurements_in(self, folder: Path) -> Measurements:
        """Read the results in the folder of a metrics stage."""
        rows, objects = (_measured(folder / file, self._jsonl(folder / file)) for file in MEASURED)
        about = self._json(folder / "metrics.json") or {}
        try:
            metrics = {name: MetricInfo(**info) for name, info in about.get("metrics", {}).items()}
        except (TypeError, AttributeError) as error:
            raise damaged(folder / "metrics.json", f"it does not describe metrics: {error}") from error
        for scope, scope_rows in (("view", rows), ("object", objects)):
            for name in dict.fromkeys(key for row in scope_rows for key in row if key not in KEYS):
                metrics.setdefault(name, MetricInfo(name, scope=scope))
        extra = {key: about[key] for key in ("missing", "versions", "commit", "sets", "gaps", "truth") if key in about}
        return Measurements(rows, metrics, objects=objects, **extra)

    def _chunks(self, stage: str, identity: str) -> list[JsonRow]:
        files = sorted(self.folder(stage, identity).glob("chunk-*.jsonl"))
        if not files:
            self.note(f"{stage} {identity}: no object records")
        return [row for file in files for row in self._jsonl(file)]

    def _history(self, stage: str, identity: str) -> list[JsonRow]:
        file = self.folder(stage, identity) / "history.jsonl"
        rows = self._jsonl(file)
        if not all(_is_number(value) for row in rows for value in row.values()):
            raise damaged(file, "it has a value that is not a number")
        return rows

    def benchmarks(self, stage: str, identity: str) -> list[JsonRow]:
        """Snakemake's benchmark rows of all jobs of a stage, possibly none."""
        rows: list[JsonRow] = []
        for file in sorted(self.folder(stage, identity).glob("benchmark/*.tsv")):
            with file.open(encoding="utf-8", newline="") as lines:
                rows += csv.DictReader(lines, delimiter="\t")
        return rows

    def jobs(self, stage: str, identity: str) -> list[JsonRow]:
        """Records of the stage's jobs (`z1g.jobs.records`), possibly none."""
        records = []
        for file in sorted(self.folder(stage, identity).glob("jobs/*.json")):
            record = read_record(file.parents[1].resolve(), file.stem)
            if record is not None:
                records.append(record)
        return records

    def plan(self, name: str) -> dict[str, Any]:
        """The `plan.json` of an ablation, empty if there is none."""
        plan = self._json(self.root / "ablations" / name / "plan.json")
        return plan if isinstance(plan, dict) else {}

    def note(self, text: str) -> None:
        """Add a note unless it exists."""
        if text not in self.notes:
            self.notes.append(text)

    def _json(self, path: Path) -> Any:
        try:
            return read_json(checked(path))
        except (OSError, ValueError) as error:
            self._note_unreadable(path, error)
            return None

    def _jsonl(self, path: Path) -> list[JsonRow]:
        try:
            return read_jsonl(checked(path))
        except (OSError, ValueError) as error:
            self._note_unreadable(path, error)
            return []

    def _note_unreadable(self, path: Path, error: Exception) -> None:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        self.note(f"{path.relative_to(self.root) if path.is_relative_to(self.root) else path} {reason}")


def _measured(file: Path, rows: list[JsonRow]) -> list[JsonRow]:
    """The same rows. Raises UserError if one is not of an object, or has a value that is not a number."""
    for row in rows:
        if not row.keys() >= {"object", "split", "source"}:
            raise damaged(file, "it has a row without object, split and source")
        if wrong := [key for key, value in row.items() if key not in KEYS and not _is_number(value)]:
            raise damaged(file, f"its {wrong[0]} of {row['object']} is not a number")
    return rows


def _is_number(value: Any) -> bool:
    """Whether a value of a table is a number, or none."""
    return value is None or isinstance(value, int | float)


def shared_ids(ablations: Iterable[Ablation], stage: str) -> dict[str, list[str]]:
    """Ids of a stage, and for each the names of the ablations that use it, in the given order."""
    users: dict[str, list[str]] = {}
    for ablation in ablations:
        if stage in ablation.stages:
            users.setdefault(ablation.stages[stage], []).append(ablation.name)
    return users


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of a nested dict by dotted key path. Lists and empty dicts are leaves."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def differences(configs: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Key paths whose values differ between configurations, with the value of each (`...` if it has none)."""
    flat = [flatten(config) for config in configs]
    keys = dict.fromkeys(key for leaves in flat for key in leaves)
    table = {key: [leaves.get(key, ...) for leaves in flat] for key in keys}
    return {key: values for key, values in table.items() if any(value != values[0] for value in values)}
