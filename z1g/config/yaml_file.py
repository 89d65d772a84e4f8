"""YAML with positions: values and the line of each key."""

import unicodedata
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import yaml

from z1g.config.scalars import TAG, TAGS, Loader, ScalarError, scalar
from z1g.core.errors import UserError
from z1g.core.files import read_bytes

KeyPath = tuple[str, ...]
MAX_NODES = 100_000
LARGEST_BYTES = 2**20
"""Size limit of a file; PyYAML takes a second for it."""
NO_LINE = 0
COLLECTION_TAGS = (f"{TAG}map", f"{TAG}seq")


@dataclass
class YamlFile:
    """A parsed file: `values` and the 1-based line of every key path; entries of lists count as keys `0`, `1`, …

    What is no file has NO_LINE.
    """

    path: Path
    values: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def where(self, key_path: KeyPath) -> str:
        """`file:line` of the key path or of its nearest ancestor in the file."""
        for n in range(len(key_path), 0, -1):
            if line := self.lines.get(key_path[:n], NO_LINE):
                return f"{self.path}:{line}"
        return str(self.path)


def read_yaml(path: Path) -> YamlFile:
    """Read one mapping. Raises UserError with file and line if the file is missing or not a plain YAML mapping."""
    try:
        text = read_bytes(path, LARGEST_BYTES).decode()
    except OSError as error:
        raise UserError(f"{path}: cannot be read as text ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as text ({error}); save it as UTF-8") from error
    try:
        node = yaml.compose(text, Loader=Loader)
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
    """Converts nodes to values; rejects YAML that configurations do not support."""

    def __init__(self, file: YamlFile) -> None:
        self.file, self.count, self.open = file, 0, set[int]()
        self.construct = yaml.SafeLoader("")

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.count += 1
        if self.count > MAX_NODES or id(node) in self.open or len(path) > 50:
            raise self.error(node, "the file is too large, too deep or refers to itself")
        if isinstance(node, yaml.CollectionNode) and node.tag not in COLLECTION_TAGS:
            raise self.error(node, f"cannot be read: the tag {_short(node.tag)} is not supported")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return self.sequence(node, path)
            return self.scalar(node)
        finally:
            self.open.discard(id(node))

    def sequence(self, node: yaml.SequenceNode, path: KeyPath) -> list[Any]:
        result = []
        for i, child in enumerate(node.value):
            self.file.lines[(*path, str(i))] = child.start_mark.line + 1
            result.append(self.value(child, (*path, str(i))))
        return result

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{TAG}merge":
                raise self.error(key_node, "merge keys (<<) are not supported; write the values out")
            key = self.scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str) or not key or not key.isprintable():
                key_text = repr(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a mapping or list"
                raise self.error(key_node, f"keys must be words, got {key_text}")
            if key in result:
                raise self.error(key_node, f'key "{key}" appears twice')
            here = (*path, key)
            self.file.lines[here] = key_node.start_mark.line + 1
            result[key] = self.value(value_node, here)
        return result

    def scalar(self, node: yaml.Node) -> Any:
        tag = _short(node.tag)
        if tag in ("str", "merge"):
            value = node.value
        elif tag in TAGS:
            try:
                value = scalar(tag, node.value)
            except ScalarError as error:
                raise self.error(node, str(error)) from error
        else:
            try:
                value = self.construct.construct_object(node, deep=True)
            except yaml.constructor.ConstructorError as error:
                raise self.error(node, f"cannot be read: the tag {tag} is not supported") from error
            except (ValueError, ArithmeticError, LookupError, AttributeError) as error:
                # PyYAML's constructors fail in all these ways on a tag that does not fit its text.
                raise self.error(node, f"cannot be read as {tag}: {node.value[:40]!r}") from error
        if isinstance(value, str) and any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in value):
            raise self.error(node, f"the string {value[:40]!a} contains unprintable characters")
        if value is not None and not isinstance(value, (str, int, float, bool)):
            raise self.error(node, f"{_kind(value)} is not supported; put it in quotes to make it a string")
        return value

    def error(self, node: yaml.Node, message: str) -> UserError:
        return UserError(f"{self.file.path}:{node.start_mark.line + 1}: {message}")


def _short(tag: str) -> str:
    return tag.removeprefix(TAG)


def _kind(value: Any) -> str:
    names = {
        **{list: "a list", str: "a string", int: "a number", float: "a number", bool: "true or false"},
        **{type(None): "null", bytes: "binary data", date: "a date", datetime: "a date and time"},
    }
    return names.get(type(value), type(value).__name__)
