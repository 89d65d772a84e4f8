"""What is wrong with a configuration, one line a mistake: file and line, key path, expectation, nearest valid name."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from pydantic import BaseModel, ValidationError

from z1g.config.lookup import kinds_at, kinds_with, section_at, valid_names, value_at
from z1g.config.tree import Experiment
from z1g.config.yaml_file import KeyPath, YamlFile
from z1g.core.names import did_you_mean

RENAMED: dict[KeyPath, str] = {("data", "blender"): "its options below `data.renderer: {kind: blender}`"}
"""What to write instead of keys of earlier versions."""


def explain(
    error: ValidationError, merged: Any, files: Sequence[YamlFile], root: type[BaseModel] = Experiment
) -> list[str]:
    """One line for every mistake that pydantic found in `merged`, the values of `files`, as a `root`."""
    problems = _causes([dict(problem) for problem in error.errors()], merged)
    return [_explain(problem, merged, files, root) for problem in problems]


NESTED = (dict, list)


def mistaken_truths(values: Any, validated: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Paths of true or false in place of a number; pydantic would accept them as 1 and 0.

    validated: sections, or their plain values.
    """
    if isinstance(validated, BaseModel):
        validated = validated.__dict__
    if isinstance(values, dict) and isinstance(validated, dict):
        for key in values.keys() & validated.keys():
            if values[key].__class__ in NESTED or values[key].__class__ is not validated[key].__class__:
                yield from mistaken_truths(values[key], validated[key], (*path, key))
    elif isinstance(values, list) and isinstance(validated, list | tuple):
        for index, pair in enumerate(zip(values, validated, strict=False)):
            yield from mistaken_truths(*pair, (*path, str(index)))
    elif isinstance(values, bool) and not isinstance(validated, bool):
        yield path


def _explain(problem: dict[str, Any], merged: Any, files: Sequence[YamlFile], root: type[BaseModel]) -> str:
    """One line: file and line, key, expectation and nearest valid name."""
    path = _key_path(problem["loc"], merged)
    kind, context, given = problem["type"], problem.get("ctx", {}), problem["input"]
    if not path:
        message = problem["msg"].removeprefix("Value error, ")
        return f"{where_is(files, *_mentioned(message))}: {message}"
    if kind == "extra_forbidden":
        message = f"unknown key{_instead(path, merged, root)}"
    elif kind == "union_tag_invalid":
        path = (*path, "kind")
        tags = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        message = f"unknown kind {_shown(value_at(merged, path))}{did_you_mean(str(context['tag']), tags)}"
    elif kind == "literal_error" and path[-1] == "kind":
        message = f"unknown kind {_shown(given)}{did_you_mean(str(given), kinds_at(path[:-1], merged, root))}"
    elif kind == "union_tag_not_found":
        message = "needs a `kind`; valid: " + ", ".join(kinds_at(path, merged, root))
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        message = f"expected a mapping, got {_shown(given)}"
        if given is None and section_at(path[:-1], merged, root) is None:
            message += "; null removes an entry, but there is no entry of this name"
    elif isinstance(given, bool) and kind.startswith(("less_than", "greater_than")):
        message = "expected a number, got true or false"
    elif kind == "value_error":
        message = problem["msg"].removeprefix("Value error, ")
    else:
        message = f"{_expected(kind, context, problem['msg'])}, got {_shown(given)}"
        if kind == "literal_error" and isinstance(given, str):
            near = did_you_mean(given, re.findall("'([^']*)'", context["expected"]))
            message += near if "did you mean" in near else ""
    return f"{where_is(files, path)}: {'.'.join(path)}: {message}"


def _instead(path: KeyPath, merged: Any, root: type[BaseModel]) -> str:
    """What to write instead of an unknown key."""
    if path in RENAMED:
        return f"; write {RENAMED[path]}"
    first, *inner = path[-1].split(".")
    if inner and first in valid_names(path[:-1], merged, root):
        return f"; keys are nested, not joined by dots: {first}: {reduce(_within, reversed(inner), '...')}"
    if having := kinds_with(path[-1], path[:-1], merged, root):
        return f" of kind {value_at(merged, (*path[:-1], 'kind'))}; kind {' or '.join(having)} has it"
    return did_you_mean(path[-1], valid_names(path[:-1], merged, root))


def _within(value: str, key: str) -> str:
    return f"{{{key}: {value}}}"


def _expected(kind: str, context: Mapping[str, Any], otherwise: str) -> str:
    """Pydantic's expectation in the terms of YAML."""
    plain = {
        "int": "expected an integer",
        "float": "expected a number",
        "finite": "expected a finite number",
        "bool": "expected true or false",
        "string": "expected a string",
        "tuple": "expected a list",
        "missing": "expected one more entry",
    }
    expectation = plain.get(kind.split("_")[0])
    if expectation is not None:
        return expectation
    if kind in ("too_short", "too_long"):
        limit = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"expected {limit} {'entry' if limit.endswith(' 1') else 'entries'}"
    if kind == "literal_error":
        return f"expected {context['expected']}"
    text = otherwise.removeprefix("Input should be ")
    return f"expected a number {text}" if text != otherwise else text[:1].lower() + text[1:]


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:80]


def _causes(problems: list[dict[str, Any]], merged: Any) -> list[dict[str, Any]]:
    """Omit problems that follow from others: in a section whose `kind` is wrong, of a list with a wrong entry."""
    paths = [_key_path(problem["loc"], merged) for problem in problems]
    wrong_kinds = [path for path, problem in zip(paths, problems, strict=True) if problem["type"] == "literal_error"]
    wrong_sections = [path[:-1] for path in wrong_kinds if path[-1] == "kind"]
    kept = []
    for path, problem in zip(paths, problems, strict=True):
        inside = any(len(other) > len(path) > 0 and other[: len(path)] == path for other in paths)
        follows = any(path[: len(other)] == other for other in wrong_sections) and path[-1:] != ("kind",)
        if not (inside or follows):
            kept.append(problem)
    return kept


def locate(files: Sequence[YamlFile], path: KeyPath) -> str:
    """`file:line` in the last file that has the key path, or else the one above; the first file for a default."""
    last = _last(files, [path])
    return last.where(path) if last is not None else str(files[0].path) if files else "configuration"


def where_is(files: Sequence[YamlFile], *paths: KeyPath) -> str:
    """`file:line` in the last file that has one of the key paths, or else one above; else the last file."""
    last = _last(files, paths)
    if last is not None:
        for path in sorted(paths, key=lambda path: path not in last.lines):
            if path in last.lines or path[:-1] in last.lines:
                return last.where(path)
    return str(files[-1].path) if files else "configuration"


def _last(files: Sequence[YamlFile], paths: Sequence[KeyPath]) -> YamlFile | None:
    """The last file that has one of the key paths itself, or else the key above one."""
    for above in (0, 1):
        for file in reversed(files):
            if any(path[: len(path) - above] in file.lines for path in paths if len(path) > above):
                return file
    return None


def _mentioned(message: str) -> list[KeyPath]:
    """Dotted key paths in a sentence."""
    return [tuple(match.split(".")) for match in re.findall(r"[a-z_]+(?:\.[a-z_]+)+", message)]


def _key_path(location: Sequence[int | str], merged: Any) -> KeyPath:
    """Pydantic's location without the tags of unions."""
    path: list[str] = []
    current = merged
    for part in location:
        if isinstance(current, dict) and part not in current and current.get("kind") == part:
            continue
        path.append(str(part))
        if isinstance(current, dict):
            current = current.get(part)
        elif isinstance(current, list) and isinstance(part, int) and part < len(current):
            current = current[part]
        else:
            current = None
    return tuple(path)
