"""From YAML files to a validated experiment: defaults, then the scale, then the ablations that build on each other.

A model of kind `trained` settles some of the defaults (`z1g.config.trained`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from z1g.config.explain import explain, mistaken_truths, where_is
from z1g.config.header import option_values
from z1g.config.peers import PeerOptions
from z1g.config.prune import Prune
from z1g.config.trained import settled_by
from z1g.config.tree import Experiment
from z1g.config.yaml_file import YamlFile
from z1g.core.errors import UserError
from z1g.core.names import did_you_mean
from z1g.core.slots import Section


@dataclass(frozen=True)
class Run:
    """Which run of an ablation file an ablation is, and what its file and set say about it.

    study: name of the file. arm: name of the run without fold and replicate; runs of one arm are replicates. point:
    values of the sweep's point by key path. seed: number of the replicate; `replicated` are the stages that it changes
    before sampling. x: horizontal axis of learning curves. chain: names of the ablations that the file builds on, the
    nearest first. prune: whether only the best arms of the `cohort`, a file or a set, are trained to their end. peers:
    other systems that its set measures beside it.
    """

    study: str
    arm: str
    point: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    replicated: tuple[str, ...] = ()
    fold: int | None = None
    set: str | None = None
    priority: int = 0
    tags: tuple[str, ...] = ()
    notes: str = ""
    x: str | None = None
    chain: tuple[str, ...] = ()
    prune: Prune | None = None
    cohort: str = ""
    peers: Mapping[str, PeerOptions] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The run as JSON, for `plan.json`."""
        return {
            "study": self.study,
            "arm": self.arm,
            "point": dict(self.point),
            "seed": self.seed,
            "replicated": list(self.replicated),
            "fold": self.fold,
            "set": self.set,
            "priority": self.priority,
            "tags": list(self.tags),
            "notes": self.notes,
            "x": self.x,
            "chain": list(self.chain),
        }


@dataclass(frozen=True)
class Ablation:
    """One ablation, resolved.

    `differences` are the values that the ablation has over its scale, which `base` names. `files` are the merged files,
    the scale first. `run` says which run of an ablation file it is; None: the only one.
    """

    name: str
    description: str
    base: str
    differences: dict[str, Any]
    experiment: Experiment
    files: tuple[YamlFile, ...] = ()
    run: Run | None = None

    @property
    def about(self) -> Run:
        """Which run it is."""
        return self.run or Run(self.name, self.name)


def scale_file(scale: str, configs: Path) -> Path:
    """The base configuration of a scale: a name in `configs/` or a path to a YAML file. Raises UserError."""
    path = Path(scale) if scale.endswith((".yaml", ".yml")) else configs / f"{scale}.yaml"
    try:
        exists = path.is_file()
    except OSError:
        exists = False
    if not exists:
        names = [file.stem for file in sorted(configs.glob("*.yaml"))]
        raise UserError(f'scale "{scale}": there is no file {path}{did_you_mean(scale, names)}')
    return path


def resolve(files: Sequence[YamlFile]) -> Experiment:
    """Merge files over the defaults, later ones win, and validate. Raises UserError naming every mistake."""
    return _validated(_merged(files), files)


class Resolver:
    """Resolves many configurations that have most of their parts in common.

    Gives what `resolve` gives. Files that several configurations start with are merged once, and parts of equal content
    are validated once and are one object in all configurations, by which later steps recognize them.
    """

    def __init__(self) -> None:
        self._merged: dict[tuple[str, tuple[int, ...]], dict[str, Any]] = {}
        self._known: dict[int, Section] = {}
        self._by_content: dict[tuple[str, str], Section] = {}
        self._kept: list[Any] = []

    def experiment(self, files: Sequence[YamlFile]) -> Experiment:
        """The experiment of merged files, later ones win. Raises UserError naming every mistake."""
        merged = self.merged(files)
        try:
            parts = {name: self._part(name, value) for name, value in merged.items()}
            return Experiment.model_validate(parts)
        except (ValidationError, _Mistake):
            return _validated(merged, files)

    @staticmethod
    def parts(experiment: Experiment) -> tuple[int, ...]:
        """What tells experiments of one resolver apart."""
        return tuple(id(getattr(experiment, name)) for name in Experiment.model_fields)

    def merged(self, files: Sequence[YamlFile]) -> dict[str, Any]:
        """The values of merged files over the defaults, as plain values, which must not be changed."""
        merged = self._over("{}", files)
        own = settled_by(merged.get("model"))
        return self._over(json.dumps(own), files) if own else merged

    def _over(self, settled: str, files: Sequence[YamlFile]) -> dict[str, Any]:
        """Files over the defaults and over what a trained model settles of them, as JSON."""
        key = settled, tuple(id(file) for file in files)
        if key not in self._merged:
            if files:
                self._kept.append(files[-1])  # An id may be used again when its object is gone.
                self._merged[key] = merge(self._over(settled, files[:-1]), option_values(files[-1].values))
            else:
                self._merged[key] = merge(_defaults(), json.loads(settled))
        return self._merged[key]

    def _part(self, name: str, value: Any) -> Section:
        """A validated part of the tree. Raises ValidationError or _Mistake."""
        if id(value) not in self._known:
            content = (name, json.dumps(value))
            if content not in self._by_content:
                if name not in Experiment.model_fields:
                    raise _Mistake
                part = _adapter(name).validate_python(value)
                if any(mistaken_truths(value, part)):
                    raise _Mistake
                # Texts such as "1" are read as numbers: equal parts may be written in several ways.
                equal = (name, part.model_dump_json())
                self._by_content[content] = self._by_content.setdefault(equal, part)
            self._kept.append(value)
            self._known[id(value)] = self._by_content[content]
        return self._known[id(value)]


class _Mistake(Exception):
    """Something that validation does not find."""


@cache
def _adapter(name: str) -> TypeAdapter[Section]:
    """Validates one part of the tree."""
    item = Experiment.model_fields[name]
    annotation: Any = item.annotation
    for metadata in item.metadata:
        annotation = Annotated[annotation, metadata]
    return TypeAdapter(annotation)


def _defaults() -> dict[str, Any]:
    return Experiment().model_dump(mode="json")


def _merged(files: Sequence[YamlFile]) -> dict[str, Any]:
    return Resolver().merged(files)


def _validated(merged: dict[str, Any], files: Sequence[YamlFile]) -> Experiment:
    try:
        experiment = Experiment.model_validate(merged)
    except ValidationError as error:
        raise UserError("\n".join(explain(error, merged, files))) from error
    truths = list(mistaken_truths(merged, experiment.model_dump(mode="json")))
    if truths:
        lines = (f"{where_is(files, path)}: {'.'.join(path)}: expected a number, got true or false" for path in truths)
        raise UserError("\n".join(lines))
    return experiment


def merge(base: Any, overlay: Any) -> Any:
    """Deep merge of mappings. A slot whose `kind` changes starts from its defaults; null removes a named entry."""
    if not (isinstance(base, dict) and isinstance(overlay, dict)):
        return overlay
    if "kind" in overlay and overlay["kind"] != base.get("kind"):
        return overlay
    named = all(isinstance(value, dict) and "kind" in value for value in base.values())
    result = dict(base)
    for key, value in overlay.items():
        if value is None and named and key in base:
            del result[key]
        else:
            result[key] = merge(base.get(key), value)
    return result
