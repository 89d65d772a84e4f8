"""Walks over the configuration tree: over its classes, and over the sections of one configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from z1g.config.lookup import unwrap
from z1g.config.tree import Experiment
from z1g.config.yaml_file import KeyPath
from z1g.core.slots import OneOf, Runtime, Section, kinds

PLAIN = frozenset({type(None), bool, int, float, str, tuple})
"""Types of values that are neither sections nor mappings. Asking pydantic's classes takes far longer."""


def places(
    root: type[Section] = Experiment, path: str = "", runtime: bool = False
) -> Iterator[tuple[str, type[Section], bool]]:
    """Every section class at every place of the tree, in reading order: place, class, whether outside of identities.

    A place is written as in docs/configuration.md, for example `autodecoder.losses.<name>: {kind: rgb}`; the root's is
    empty. A class that occurs at several places is yielded at each.
    """
    yield path, root, runtime
    for name, field in root.model_fields.items():
        annotation, extra = unwrap(field.annotation)
        metadata = [*field.metadata, *extra]
        here = place(path, name)
        if get_origin(annotation) is dict:
            annotation, inner = unwrap(get_args(annotation)[1])
            metadata += inner
            here += ".<name>"
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            continue
        off = runtime or any(isinstance(item, Runtime) for item in metadata)
        if any(isinstance(item, OneOf) for item in metadata):
            options: dict[str, type[Section]] = kinds(annotation)  # type: ignore[type-var]
            for kind, option in options.items():
                yield from places(option, f"{here}: {{kind: {kind}}}", off)
        else:
            yield from places(annotation, here, off)


def place(parent: str, name: str, value: Any = None, entry: bool = False) -> str:
    """The place of a field, or of the section that is its value; with `entry`, of an entry of its mapping."""
    here = f"{parent}.{name}".lstrip(".") + (".<name>" if entry else "")
    kind = value.__dict__.get("kind") if isinstance(value, Section) else None
    return here if kind is None else f"{here}: {{kind: {kind}}}"


def sections(section: Section, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Section]]:
    """A section and all sections below it, entries of mappings included, with their key paths."""
    yield path, section
    for name in type(section).model_fields:
        value = getattr(section, name)
        if value.__class__ in PLAIN:
            continue
        entries = value.items() if isinstance(value, dict) else [(None, value)]
        for key, item in entries:
            if isinstance(item, Section):
                yield from sections(item, (*path, name) if key is None else (*path, name, key))
