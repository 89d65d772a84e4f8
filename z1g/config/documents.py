"""Documents generated from the configuration tree: JSON schema, reference page, commented defaults."""

import inspect
import json
import typing
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from z1g.config.header import Header
from z1g.config.lookup import unwrap
from z1g.config.peers import PeerCost, PeerOptions
from z1g.config.scalars import Dumper
from z1g.config.tree import Experiment
from z1g.config.walk import places
from z1g.core.slots import Runtime, Section


def schema() -> str:
    """JSON schema of an ablation file: every key optional, null for a named entry, plus the keys of the header."""
    document, header = Experiment.model_json_schema(), Header.model_json_schema()
    document["properties"] |= header["properties"]
    document["$defs"] |= header["$defs"]
    _loosen(document)
    document["title"] = "z1g ablation"
    return json.dumps(document, indent=1) + "\n"


def _loosen(node: Any) -> None:
    """Allow partial files: a slot may omit its `kind`, and null removes a named entry."""
    if isinstance(node, dict):
        if "discriminator" in node:
            node["anyOf"] = node.pop("oneOf")
            del node["discriminator"]
        for value in node.values():
            _loosen(value)
        if isinstance(node.get("additionalProperties"), dict) and "anyOf" in node["additionalProperties"]:
            node["additionalProperties"]["anyOf"].append({"type": "null"})
    elif isinstance(node, list):
        for value in node:
            _loosen(value)


def resolved(experiment: Experiment) -> str:
    """A whole experiment as YAML."""
    text: str = yaml.dump(experiment.model_dump(mode="json"), Dumper=Dumper, sort_keys=False, width=110)
    return text


def defaults() -> str:
    """configs/full.yaml: every default with its description as a comment."""
    lines = ["# The corrected method at full size. Generated: `z1g config write`; change defaults in the package."]
    return "\n".join([*lines, *_yaml(Experiment(), 0)]) + "\n"


def reference() -> str:
    """docs/configuration.md: a table for each section and each kind of a slot."""
    lines = ["# Configuration", "", "Generated from the configuration tree by `z1g config write`.", ""]
    lines += ["## The header of ablation files", "", "What is said about runs; see [ablations](ablations.md).", ""]
    lines += _table(Header)
    lines += [
        "## Other systems that a set measures",
        "",
        "`peers: {name: ...}` in `_set.yaml`; see [peers](peers.md).",
        "",
    ]
    lines += _table(PeerOptions)
    lines += ["### `cost` of one, or `cost.json` beside its outputs", "", *_table(PeerCost)]
    for title, cls in _sections():
        lines += [f"## {title}", "", inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " "), ""]
        lines += _table(cls)
    return "\n".join(lines)


def _table(cls: type[Section]) -> list[str]:
    rows = [
        f"| `{name}` | {_default(field)} | {_meaning(field)} |"
        for name, field in cls.model_fields.items()
        if name != "kind"
    ]
    return ["| key | default | meaning |", "|---|---|---|", *rows, ""] if rows else ["No options.", ""]


def _yaml(section: Section, depth: int) -> Iterator[str]:
    pad = "  " * depth
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        note = f"  # {field.description}" if field.description else ""
        if isinstance(value, Section):
            yield f"{pad}{name}:"
            yield from _yaml(value, depth + 1)
        elif isinstance(value, dict):
            yield f"{pad}{name}:"
            for key, item in value.items():
                yield f"{pad}  {key}:"
                yield from _yaml(item, depth + 2)
        else:
            plain = json.dumps(section.model_dump(mode="json")[name])
            yield f"{pad}{name}: {plain}{note}"


def _sections() -> Iterator[tuple[str, type[Section]]]:
    """Every section class once, in reading order, with the first place at which it occurs."""
    first: dict[type[Section], str] = {}
    for path, cls, _ in places():
        first.setdefault(cls, path)
    yield from ((path, cls) for cls, path in first.items() if path)


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required():
        return "required"
    if isinstance(value, Section):
        return f"kind: {value.kind}" if "kind" in type(value).model_fields else "see below"  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return ", ".join(value)
    return f"`{json.dumps(value)}`"


def _meaning(field: FieldInfo) -> str:
    text = field.description or ""
    annotation, extra = unwrap(field.annotation)
    if get_origin(annotation) is typing.Literal:
        text += f" ({', '.join(str(choice) for choice in get_args(annotation))})"
    if any(isinstance(item, Runtime) for item in [*field.metadata, *extra]):
        text += " *(outside the identity)*"
    return text.strip().replace("|", "\\|")
