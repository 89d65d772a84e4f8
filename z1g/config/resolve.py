"""From YAML files to a validated experiment: defaults, then the scale, then the ablation."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from z1g.config.lookup import kinds_at, section_at, valid_names, value_at
from z1g.config.tree import Experiment
from z1g.config.yaml_file import KeyPath, YamlFile, read_yaml
from z1g.core.errors import UserError
from z1g.core.names import did_you_mean

HEADER_KEYS = ("description", "base")
RENAMED: dict[tuple[str, ...], str] = {("data", "blender"): "its options below `data.renderer: {kind: blender}`"}
"""What to write instead of keys of earlier versions."""


@dataclass(frozen=True)
class Ablation:
    """One ablation, resolved.

    `differences` are the ablation file's own values; `base` names their scale. `files` are the merged files, the scale
    first.
    """

    name: str
    description: str
    base: str
    differences: dict[str, Any]
    experiment: Experiment
    files: tuple[YamlFile, ...] = ()


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


def load_ablation(path: Path, scale: str, configs: Path, objects: Sequence[str] = ()) -> Ablation:
    """Read and validate one ablation on its base. Raises UserError with file, line, key path and expectation.

    `objects` are meshes that replace the data of the base.
    """
    file = read_yaml(path)
    header = {key: _header(file, key) for key in HEADER_KEYS}
    base = header["base"] or scale
    differences = {key: value for key, value in file.values.items() if key not in HEADER_KEYS}
    try:
        base_file = scale_file(base, configs)
    except UserError as error:
        raise UserError(f"{file.where(('base',))}: base: {error}" if header["base"] else str(error)) from error
    data = {"data": {"kind": "meshes", "paths": list(objects)}} if objects else {}
    files = (read_yaml(base_file), YamlFile(Path("--config objects="), data), file)
    return Ablation(path.stem, header["description"] or "", base, differences, resolve(files), files)


def resolve(files: Sequence[YamlFile]) -> Experiment:
    """Merge files over the defaults, later ones win, and validate. Raises UserError naming every mistake."""
    merged: dict[str, Any] = Experiment().model_dump(mode="json")
    for file in files:
        values = {key: value for key, value in file.values.items() if key not in HEADER_KEYS}
        merged = merge(merged, values)
    try:
        experiment = Experiment.model_validate(merged)
    except ValidationError as error:
        problems = _causes([dict(problem) for problem in error.errors()], merged)
        raise UserError("\n".join(_explain(problem, merged, files) for problem in problems)) from error
    truths = list(_mistaken_truths(merged, experiment.model_dump(mode="json"), ()))
    if truths:
        lines = (f"{_locate(files, path)}: {'.'.join(path)}: expected a number, got true or false" for path in truths)
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


def _header(file: YamlFile, key: str) -> str | None:
    value = file.values.get(key)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{file.where((key,))}: {key}: expected a string, got {json.dumps(value, default=str)}")
    return value


def _explain(problem: dict[str, Any], merged: Any, files: Sequence[YamlFile]) -> str:
    """One line: file and line, key, expectation and nearest valid name."""
    path = _key_path(problem["loc"], merged)
    kind, context, given = problem["type"], problem.get("ctx", {}), problem["input"]
    if not path:
        message = problem["msg"].removeprefix("Value error, ")
        return f"{_locate(files, *_mentioned(message))}: {message}"
    if kind == "extra_forbidden":
        renamed = RENAMED.get(path)
        near = did_you_mean(path[-1], valid_names(path[:-1], merged)) if renamed is None else f"; write {renamed}"
        message = f"unknown key{near}"
    elif kind == "union_tag_invalid":
        path = (*path, "kind")
        tags = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        message = f"unknown kind {_shown(value_at(merged, path))}{did_you_mean(str(context['tag']), tags)}"
    elif kind == "literal_error" and path[-1] == "kind":
        message = f"unknown kind {_shown(given)}{did_you_mean(str(given), kinds_at(path[:-1], merged))}"
    elif kind == "union_tag_not_found":
        message = "needs a `kind`; valid: " + ", ".join(kinds_at(path, merged))
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        message = f"expected a mapping, got {_shown(given)}"
        if given is None and section_at(path[:-1], merged) is None:
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
    return f"{_locate(files, path)}: {'.'.join(path)}: {message}"


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


def _mistaken_truths(values: Any, validated: Any, path: KeyPath) -> Iterator[KeyPath]:
    """Paths of true or false in place of a number; pydantic would accept them as 1 and 0."""
    if isinstance(values, dict) and isinstance(validated, dict):
        for key in values.keys() & validated.keys():
            yield from _mistaken_truths(values[key], validated[key], (*path, key))
    elif isinstance(values, list) and isinstance(validated, list):
        for index, pair in enumerate(zip(values, validated, strict=False)):
            yield from _mistaken_truths(*pair, (*path, str(index)))
    elif isinstance(values, bool) and not isinstance(validated, bool):
        yield path


def _locate(files: Sequence[YamlFile], *paths: KeyPath) -> str:
    """`file:line` in the last file that has one of the key paths; else the last file."""
    for file in reversed(files):
        for path in paths:
            if _has(file, path):
                return file.where(path)
    return str(files[-1].path) if files else "configuration"


def locate(files: Sequence[YamlFile], path: KeyPath) -> str:
    """`file:line` in the last file that has the key path or the one above; the first file where it is a default."""
    last = next((file for file in reversed(files) if _has(file, path)), None)
    return last.where(path) if last is not None else str(files[0].path) if files else "configuration"


def _mentioned(message: str) -> list[KeyPath]:
    """Dotted key paths in a sentence."""
    return [tuple(match.split(".")) for match in re.findall(r"[a-z_]+(?:\.[a-z_]+)+", message)]


def _has(file: YamlFile, path: KeyPath) -> bool:
    return any(path[:n] in file.lines for n in range(len(path), max(len(path) - 2, 0), -1)) and bool(path)


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
