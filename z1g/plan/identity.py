"""Identities of stages.

`id(stage)` is a digest of the configuration slice that the stage reads, the upstream ids and the stage's version.
Ablations that agree on all of these share the result. The digest includes only values that differ from recorded
defaults, see `z1g.plan.neutral`, so adding an option does not change ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from z1g.config.resolve import Ablation
from z1g.config.sections import JobResources, Resources
from z1g.config.tree import Experiment
from z1g.config.walk import place, sections
from z1g.config.yaml_file import KeyPath
from z1g.core.slots import FileContent, Runtime, Section
from z1g.core.stages import CHUNKED, CHUNKED_BY_OBJECTS
from z1g.data.manifest import Manifest, evaluation_objects
from z1g.meshes.file_digest import file_digest
from z1g.plan import neutral
from z1g.plan.slices import cut
from z1g.plan.stages import STAGES, StageSpec

ID_LENGTH = 10


@dataclass(frozen=True)
class Stage:
    """A stage with its identity. `config` is the slice that it reads, including runtime values; `reads` its key paths.

    `recipe` is the identity without the list of objects: folders with the same recipe have the same result for an
    object.
    """

    name: str
    id: str
    recipe: str
    version: int
    config: dict[str, Any]
    reads: tuple[str, ...]
    upstream: dict[str, str]
    n_chunks: int
    resources: JobResources
    objects: str | None = None
    """Digest of what the stage takes from the list of objects: of stage `ingest` the objects, of stage `autodecoder`
    their categories, if samples are drawn by them.
    """

    @property
    def key(self) -> tuple[str, str]:
        """Name and id."""
        return self.name, self.id

    def record(self) -> dict[str, Any]:
        """Content of `stage.json`."""
        return {
            "stage": self.name,
            "id": self.id,
            "recipe": self.recipe,
            "version": self.version,
            "config": self.config,
            "reads": list(self.reads),
            "upstream": self.upstream,
            "n_chunks": self.n_chunks,
            "resources": self.resources.model_dump(mode="json"),
            **({"objects": self.objects} if self.objects else {}),
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Stage:
        """Inverse of `record`."""
        values = {name: record[name] for name in ("id", "recipe", "version", "config", "upstream", "n_chunks")}
        kind = type(getattr(Resources(), record["stage"]))
        reads = tuple(record.get("reads", ()))
        resources, objects = kind(**record["resources"]), record.get("objects")
        return cls(name=record["stage"], reads=reads, resources=resources, objects=objects, **values)


class Shared:
    """What the stages of many ablations have in common, computed once.

    Ablations share sections, which are the same objects in all of them (`z1g.config.resolve.Resolver`); what depends on
    certain sections only is kept by these. The files that configurations name are read once.
    """

    def __init__(self) -> None:
        self._plain: dict[int, tuple[dict[str, Any], Any]] = {}
        self._slices: dict[tuple[Any, ...], tuple[dict[str, Any], dict[str, Any]]] = {}
        self._distinct: dict[tuple[str, int], dict[str, Any]] = {}
        self._stages: dict[tuple[Any, ...], Stage] = {}
        self._evaluated: dict[tuple[int, int, int], int] = {}
        self._digests: dict[tuple[int, str], str] = {}
        self._kept: dict[int, Any] = {}

    def slices(self, experiment: Experiment, reads: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The slice at key paths: what of it identifies, and all of it."""
        defaults = neutral.recorded()
        removed = tuple(defaults.gone(Experiment, ""))
        names = dict.fromkeys(path.removeprefix("!").partition(".")[0] for path in reads)
        key = (reads, *(self._id(getattr(experiment, name)) for name in names))
        if key not in self._slices:
            both = {name: self._both(experiment, name) for name in names}
            timeless = {name: kept for name, (kept, _) in both.items()} | defaults.gone(Experiment, "")
            distinct = defaults.distinct(experiment, cut(timeless, (*reads, *removed)))
            self._slices[key] = distinct, cut({name: full for name, (_, full) in both.items()}, reads)
        return self._slices[key]

    def identifying_values(self, experiment: Experiment) -> dict[str, Any]:
        """Values of a complete configuration that are part of identities."""
        defaults = neutral.recorded()
        values = defaults.distinct(experiment, defaults.gone(Experiment, ""))
        for name in neutral.identifying(Experiment):
            key = name, self._id(getattr(experiment, name))
            if key not in self._distinct:
                self._distinct[key] = defaults.distinct(experiment, {name: self._both(experiment, name)[0]})
            values |= self._distinct[key]
        return values

    def n_evaluated(self, experiment: Experiment, manifest: Manifest) -> int:
        """Number of objects that are sampled and measured."""
        data, number = experiment.data, experiment.infer.train_objects
        key = self._id(manifest), self._id(data), number
        if key not in self._evaluated:
            self._evaluated[key] = len(evaluation_objects(manifest, data.split, number))
        return self._evaluated[key]

    def read_from(self, manifest: Manifest, stage: str, experiment: Experiment) -> str | None:
        """See `Stage.objects`."""
        if stage == "ingest":
            return self._digest(manifest, Manifest.digest)
        if stage == "autodecoder" and experiment.data.category_power != 1:
            return self._digest(manifest, Manifest.categories)
        return None

    def _digest(self, manifest: Manifest, of: Callable[[Manifest], str]) -> str:
        key = self._id(manifest), of.__name__
        if key not in self._digests:
            self._digests[key] = of(manifest)
        return self._digests[key]

    def stage(self, make: Callable[[], Stage], *parts: Any) -> Stage:
        """The stage that depends on `parts`: hashable values, or objects that ablations share."""
        key = tuple(part if isinstance(part, str | int | tuple) else self._id(part) for part in parts)
        if key not in self._stages:
            self._stages[key] = make()
        return self._stages[key]

    def _both(self, experiment: Experiment, name: str) -> tuple[Any, Any]:
        """Plain values of a section, without runtime options and with all options."""
        section = getattr(experiment, name)
        key = self._id(section)
        if key not in self._plain:
            full = section.model_dump(mode="json")
            self._plain[key] = without_runtime(section, place("", name, section)), full
        return self._plain[key]

    def _id(self, shared: Any) -> int:
        """A key for an object, which is kept, as an id may be used again when its object is gone."""
        self._kept[id(shared)] = shared
        return id(shared)


def planned_stages(ablation: Ablation, manifest: Manifest, shared: Shared | None = None) -> dict[str, Stage]:
    """Stages of an ablation for a list of objects, with their identities.

    shared: what was computed for other ablations; results are the same with and without.
    """
    experiment, shared = ablation.experiment, shared or Shared()
    n_evaluated = shared.n_evaluated(experiment, manifest)
    stages: dict[str, Stage] = {}
    for name, spec in STAGES.items():
        reads = spec.reads(experiment)
        distinct, config = shared.slices(experiment, reads)
        upstream = {other: stages[other] for other in spec.upstream}
        n_chunks = 1
        if name in CHUNKED_BY_OBJECTS:
            n_chunks = manifest.n_chunks
        elif name in CHUNKED:
            n_chunks = max(1, -(-n_evaluated // experiment.infer.chunk_size))
        resources: JobResources = getattr(experiment.resources, name)
        objects = shared.read_from(manifest, name, experiment)
        make = partial(_stage, spec, distinct, config, reads, upstream, objects, n_chunks, resources)
        above = tuple((stage.id, stage.recipe) for stage in upstream.values())
        stages[name] = shared.stage(make, name, above, distinct, config, objects or "", n_chunks, resources)
    return stages


def _stage(
    spec: StageSpec,
    distinct: dict[str, Any],
    config: dict[str, Any],
    reads: tuple[str, ...],
    upstream: dict[str, Stage],
    objects: str | None,
    n_chunks: int,
    resources: JobResources,
) -> Stage:
    ids = {name: stage.id for name, stage in upstream.items()}
    identity = {"stage": spec.name, "version": spec.version, "upstream": ids, "config": distinct}
    recipe = digest({**identity, "upstream": {name: stage.recipe for name, stage in upstream.items()}})
    if objects is not None:
        identity["objects"] = objects
    return Stage(spec.name, digest(identity), recipe, spec.version, config, reads, ids, n_chunks, resources, objects)


def digest(value: Any) -> str:
    """Short digest of a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def without_runtime(section: Section, path: str = "", dumped: dict[str, Any] | None = None) -> dict[str, Any]:
    """Values of the section at a path, without runtime options, and with digests of files instead of their paths.

    Includes removed options that are still part of identities. dumped: plain values of the section, if they are known.
    """
    kept: dict[str, Any] = {}
    if dumped is None:
        dumped = section.model_dump(mode="json", serialize_as_any=True)
    for name, mark in _timeless_fields(type(section)):
        if mark:
            kept[name] = dumped[name] and (_content(mark, dumped[name]) or dumped[name])
        else:
            kept[name] = _dump(getattr(section, name), dumped[name], path, name)
    return {**kept, **neutral.recorded().gone(type(section), path)}


def missing_files(section: Section) -> list[tuple[KeyPath, str]]:
    """Key paths and values of the options below a section whose file counts by its content and cannot be read."""
    return [
        ((*path, name), getattr(below, name))
        for path, below in sections(section)
        for name, mark in _timeless_fields(type(below))
        if mark and getattr(below, name) and _content(mark, getattr(below, name)) is None
    ]


def _content(mark: FileContent, value: str) -> str | None:
    """Digest of the file that an option's value stands for; None if it cannot be read."""
    return file_digest(str(mark.file(value)))


@cache
def _timeless_fields(section: type[Section]) -> tuple[tuple[str, FileContent | None], ...]:
    """Names of the fields that are not runtime options, with the mark of those that count by a file's content."""
    return tuple(
        (name, next((item for item in field.metadata if isinstance(item, FileContent)), None))
        for name, field in section.model_fields.items()
        if not any(isinstance(item, Runtime) for item in field.metadata)
    )


def identifying_values(section: Section) -> dict[str, Any]:
    """Values of a complete configuration that are part of identities."""
    return neutral.recorded().distinct(section, without_runtime(section))


def _dump(value: Any, dumped: Any, path: str, name: str) -> Any:
    if not isinstance(dumped, dict):  # Far faster than to ask whether the value is a section.
        return dumped
    if isinstance(value, Section):
        return without_runtime(value, place(path, name, value), dumped)
    if isinstance(value, dict):
        return {key: _entry(item, dumped[key], place(path, name, item, entry=True)) for key, item in value.items()}
    return dumped


def _entry(item: Any, dumped: Any, path: str) -> Any:
    return without_runtime(item, path, dumped) if isinstance(item, Section) else dumped
