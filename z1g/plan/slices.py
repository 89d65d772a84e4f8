"""Configuration slices of stages, as plain values and as an experiment."""

import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from z1g.config.tree import Experiment
from z1g.core.slots import Section
from z1g.plan.neutral import recorded


def cut(values: dict[str, Any], reads: Sequence[str]) -> dict[str, Any]:
    """Select the part of nested values at key paths; a partially selected slot keeps its `kind`.

    Mappings on the way to the last keys are new, what is below them belongs to `values`, too, and must not be changed.
    """
    result: dict[str, Any] = {}
    for path in reads:
        remove = path.startswith("!")
        *parents, last = path.removeprefix("!").split(".")
        source, target = values, result
        for part in parents:
            source = source[part]
            known = target.get(part)
            target[part] = {"kind": source["kind"]} if known is None and "kind" in source else dict(known or {})
            target = target[part]
        if remove:
            target.pop(last, None)
        elif last in source:
            target[last] = source[last]
    return result


def restored(values: dict[str, Any], reads: Sequence[str] | None) -> dict[str, Any]:
    """A slice read from disk, completed with the first defaults of options that did not exist when it was written.

    reads: key paths of the slice; None returns the values unchanged.
    """
    return values if reads is None else cut(recorded().completed(values), reads)


def slice_config(values: Mapping[str, Any]) -> Experiment:
    """An experiment with only the parts in `values`; reading any other attribute raises AttributeError."""
    sections = {}
    for name, content in values.items():
        field = Experiment.model_fields[name]
        annotation: Any = field.annotation
        for item in field.metadata:
            annotation = typing.Annotated[annotation, item]
        sections[name] = TypeAdapter(annotation).validate_python(content)
    experiment = Experiment.model_construct(**sections)
    _prune(experiment, values)
    return experiment


def _prune(section: Section, values: Mapping[str, Any]) -> None:
    for name, value in list(section.__dict__.items()):
        if name not in values:
            del section.__dict__[name]
        elif isinstance(value, Section) and isinstance(values[name], Mapping):
            _prune(value, values[name])
