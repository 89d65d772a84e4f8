"""What is at a key path: a value of nested mappings, and the type that the configuration tree declares there."""

import types
import typing
from collections.abc import Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from z1g.config.header import HEADER_KEYS
from z1g.config.tree import Experiment
from z1g.config.yaml_file import KeyPath
from z1g.core.slots import OneOf, Slot, kinds


def value_at(values: Any, path: KeyPath) -> Any:
    """The value at a key path of nested mappings and lists; None if there is none."""
    for part in path:
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list):
            values = values[int(part)] if part.isdecimal() and int(part) < len(values) else None
        else:
            return None
    return values


def valid_names(path: KeyPath, merged: Any, root: type[BaseModel] = Experiment) -> list[str]:
    """Field names that are valid inside the section at `path`; at the top of an ablation also those of its header."""
    section = section_at(path, merged, root)
    names = [] if section is None else list(section.model_fields)
    return [*names, *HEADER_KEYS] if section is Experiment else names


def section_at(path: KeyPath, merged: Any, root: type[BaseModel] = Experiment) -> type[BaseModel] | None:
    """The section class at a key path below `root`, with slots decided by the `kind` in `merged`."""
    current = _type_at(path, merged, root)
    return current if _is_section(current) else None


def _type_at(path: KeyPath, merged: Any, root: type[BaseModel]) -> Any:
    """The type at a key path, with slots decided by the `kind` in `merged`; None if the tree has no such path."""
    current: Any = root
    for n, part in enumerate(path):
        current = _choose(*_declared(current, part), value_at(merged, path[: n + 1]))
    return current


def _declared(owner: Any, name: str) -> tuple[Any, list[Any]]:
    """Type and metadata of a section's field or of a mapping's entry; (None, []) if there is none."""
    if _is_section(owner) and name in owner.model_fields:
        field = owner.model_fields[name]
        annotation, extra = unwrap(field.annotation)
        return annotation, [*field.metadata, *extra]
    return unwrap(get_args(owner)[1]) if get_origin(owner) is dict else (None, [])


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def kinds_at(path: KeyPath, merged: Any, root: type[BaseModel] = Experiment) -> list[str]:
    """The kinds of the slot at a key path."""
    family: Any = _declared(_type_at(path[:-1], merged, root), path[-1])[0] if path else None
    return list(kinds(family)) if _is_section(family) and issubclass(family, Slot) else []


def kinds_with(name: str, path: KeyPath, merged: Any, root: type[BaseModel] = Experiment) -> list[str]:
    """The kinds of the slot at a key path that have an option of this name."""
    family: Any = _declared(_type_at(path[:-1], merged, root), path[-1])[0] if path else None
    if not (_is_section(family) and issubclass(family, Slot)):
        return []
    return [kind for kind, section in kinds(family).items() if name in section.model_fields]


def _choose(annotation: Any, metadata: Sequence[Any], value: Any) -> Any:
    if any(isinstance(item, OneOf) for item in metadata) and isinstance(value, dict):
        return kinds(annotation).get(str(value.get("kind")), annotation)
    return annotation


def unwrap(annotation: Any) -> tuple[Any, list[Any]]:
    """Strip Annotated and Optional; returns the bare type and the metadata."""
    metadata: list[Any] = []
    while True:
        origin = get_origin(annotation)
        if origin is typing.Annotated:
            annotation, *extra = get_args(annotation)
            metadata += extra
        elif origin in (Union, types.UnionType):
            annotation = next(a for a in get_args(annotation) if a is not type(None))
        else:
            return annotation, metadata
