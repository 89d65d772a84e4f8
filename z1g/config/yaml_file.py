"""YAML with positions: values plus the line on which each key stands."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from z1g.errors import UserError

KeyPath = tuple[str, ...]
MAX_NODES = 100_000


@dataclass
class YamlFile:
    """A parsed file: `values` and the 1-based line of every key path."""

    path: Path
    values: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def where(self, key_path: KeyPath) -> str:
        """`file:line` of the key path or of its nearest ancestor in the file."""
        for n in range(len(key_path), 0, -1):
            if key_path[:n] in self.lines:
                return f"{self.path}:{self.lines[key_path[:n]]}"
        return str(self.path)


def read_yaml(path: Path) -> YamlFile:
    """Read one mapping. Raises UserError with file and line where the file is missing or not a plain YAML mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}:{line}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from error
    file = YamlFile(path, {})
    if node is not None:
        values = _Reader(file).value(node, ())
        if not isinstance(values, dict):
            raise UserError(f"{path}:1: expected a mapping of configuration keys, got {_kind(values)}")
        file.values = values
    return file


class _Reader:
    """Turns nodes into values; refuses what a configuration has no use for."""

    def __init__(self, file: YamlFile) -> None:
        self.file, self.count, self.open = file, 0, set[int]()
        self.construct = yaml.SafeLoader("")

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.count += 1
        if self.count > MAX_NODES or id(node) in self.open or len(path) > 50:
            raise self.error(node, "the file is too large, too deep or refers to itself")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(child, (*path, str(i))) for i, child in enumerate(node.value)]
            return self.scalar(node)
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise self.error(key_node, f"keys must be words, got {key_node.value!r}")
            if key in result:
                raise self.error(key_node, f'key "{key}" appears twice')
            here = (*path, key)
            self.file.lines[here] = key_node.start_mark.line + 1
            result[key] = self.value(value_node, here)
        return result

    def scalar(self, node: yaml.Node) -> Any:
        try:
            return self.construct.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise self.error(node, f"cannot be read: {str(error).splitlines()[0]}") from error

    def error(self, node: yaml.Node, message: str) -> UserError:
        return UserError(f"{self.file.path}:{node.start_mark.line + 1}: {message}")


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a truth value"}.get(
        type(value), type(value).__name__
    )
