"""Identities of stages.

`id(stage)` is a digest of the configuration slice that the stage reads, the upstream ids and the stage's version.
Ablations that agree on all of these share the result. The digest includes only values that differ from recorded
defaults, see `z1g.plan.neutral`, so adding an option does not change ids.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from z1g.config.resolve import Ablation
from z1g.config.sections import JobResources, Resources
from z1g.config.walk import place
from z1g.core.slots import FileContent, Runtime, Section
from z1g.core.stages import CHUNKED, CHUNKED_BY_OBJECTS
from z1g.data.manifest import Manifest, evaluation_objects
from z1g.meshes.file_digest import file_digest
from z1g.plan import neutral
from z1g.plan.slices import cut
from z1g.plan.stages import STAGES

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
    """Digest of the list of objects, of stage `ingest` only."""

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


def planned_stages(ablation: Ablation, manifest: Manifest) -> dict[str, Stage]:
    """Stages of an ablation for a list of objects, with their identities."""
    experiment = ablation.experiment
    full = experiment.model_dump(mode="json")
    timeless, defaults = without_runtime(experiment), neutral.recorded()
    removed = tuple(defaults.gone(type(experiment), ""))
    evaluated = evaluation_objects(manifest, experiment.data.split, experiment.infer.train_objects)
    stages: dict[str, Stage] = {}
    for name, spec in STAGES.items():
        reads = spec.reads(experiment)
        upstream = {other: stages[other].id for other in spec.upstream}
        config = defaults.distinct(experiment, cut(timeless, (*reads, *removed)))
        identity = {"stage": name, "version": spec.version, "upstream": upstream, "config": config}
        recipe = digest({**identity, "upstream": {other: stages[other].recipe for other in spec.upstream}})
        if name == "ingest":
            identity["objects"] = manifest.digest()
        n_chunks = 1
        if name in CHUNKED_BY_OBJECTS:
            n_chunks = manifest.n_chunks
        elif name in CHUNKED:
            n_chunks = max(1, -(-len(evaluated) // experiment.infer.chunk_size))
        resources: JobResources = getattr(experiment.resources, name)
        stages[name] = Stage(
            name, digest(identity), recipe, spec.version, cut(full, reads), reads, upstream, n_chunks, resources,
            manifest.digest() if name == "ingest" else None,
        )  # fmt: skip
    return stages


def digest(value: Any) -> str:
    """Short digest of a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def without_runtime(section: Section, path: str = "") -> dict[str, Any]:
    """Values of the section at a path, without runtime options, and with digests of files instead of their paths.

    Includes removed options that are still part of identities.
    """
    kept: dict[str, Any] = {}
    dumped = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        if any(isinstance(item, FileContent) for item in field.metadata):
            kept[name] = dumped[name] and (file_digest(dumped[name]) or dumped[name])
        elif not any(isinstance(item, Runtime) for item in field.metadata):
            kept[name] = _dump(getattr(section, name), dumped[name], path, name)
    return {**kept, **neutral.recorded().gone(type(section), path)}


def identifying_values(section: Section) -> dict[str, Any]:
    """Values of a complete configuration that are part of identities."""
    return neutral.recorded().distinct(section, without_runtime(section))


def _dump(value: Any, dumped: Any, path: str, name: str) -> Any:
    if isinstance(value, Section):
        return without_runtime(value, place(path, name, value))
    if isinstance(value, dict):
        return {key: _entry(item, dumped[key], place(path, name, item, entry=True)) for key, item in value.items()}
    return dumped


def _entry(item: Any, dumped: Any, path: str) -> Any:
    return without_runtime(item, path) if isinstance(item, Section) else dumped
