"""Options that identities leave out, so that adding an option with its default does not change ids.

`defaults.json` records the *first* default of every field of the configuration: the one at the time of recording. An
identity includes only values that differ from it. The meaning of an absent field is therefore fixed forever, and two
configurations have the same identity exactly if they agree:

- A new field at its default is absent, as before it existed: ids do not change. At other values it is included. The
  same applies to new sections, new slots and options of new kinds.
- A changed default differs from the recorded one: ids of configurations that use the new default change, ids of those
  that had set either value explicitly do not.
- A mapping (losses, metrics) is one value: a new entry in a default changes ids, as it changes results.
- A field that is removed, renamed or excluded from identities (`Runtime`) stays recorded, with its *latest* default. If
  that differs from the first, it is included in identities as if the field still existed; otherwise results of the
  old default would be mistaken for those of the new one.

`z1g config write` updates the file: it appends fields and records latest defaults, but never changes a first default
and never removes a field. A test fails until this is done. Only lines of a field that has not been released may be
deleted by hand, to record another first default.

A field that is not recorded yet is treated as recorded with its current default.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from z1g.config.tree import Experiment
from z1g.config.walk import place, places
from z1g.core.slots import Runtime, Section

FILE = Path(__file__).with_name("defaults.json")
ROOT_PLACE = "experiment"
Table = dict[str, dict[str, Any]]
"""JSON values by path of the section (see `z1g.config.walk.places`) and name of the field."""


class Defaults:
    """Recorded defaults. `latest` has only those that differ from `first`."""

    def __init__(self, first: Table, latest: Table) -> None:
        self.first, self.latest = first, latest

    def distinct(self, section: Section, values: dict[str, Any], path: str = "") -> dict[str, Any]:
        """The part of a section's values that identifies it.

        values: the section as plain values, complete or partial; names that are not fields are kept.
        """
        kept: dict[str, Any] = {}
        counted, gone = identifying(type(section)), self.gone(type(section), path)
        for name, plain in values.items():
            if name in counted:
                value = self._distinct(getattr(section, name), plain, path, name)
                if not self._is_first(type(section), path, name, value):
                    kept[name] = value
            elif name == "kind" or name in gone or name not in type(section).model_fields:
                kept[name] = plain
        return kept

    def gone(self, section: type[Section], path: str) -> dict[str, Any]:
        """Removed fields that are still part of identities, with their latest defaults."""
        latest = self.latest.get(path or ROOT_PLACE)
        if not latest:
            return {}
        return {name: value for name, value in latest.items() if name not in identifying(section)}

    def completed(self, values: dict[str, Any], path: str = "") -> dict[str, Any]:
        """Complete written values of the section at a path with first defaults of fields that did not exist then.

        This is the configuration that the identity of these values stands for, independent of current defaults. Values
        of unknown kinds are unchanged.
        """
        names = _classes()[path].model_fields.keys() & self.first.get(path or ROOT_PLACE, {}).keys()
        filled = {**{name: self.first[path or ROOT_PLACE][name] for name in names}, **values}
        return {name: self._completed(value, place(path, name)) for name, value in filled.items()}

    def updated(self, root: type[Section] = Experiment) -> Defaults:
        """Return the defaults updated by the current fields and defaults of the configuration."""
        first = {path: dict(fields) for path, fields in self.first.items()}
        latest = {path: dict(fields) for path, fields in self.latest.items()}
        for path, section, runtime in places(root):
            if runtime:
                continue
            recorded, newer = first.setdefault(path or ROOT_PLACE, {}), latest.setdefault(path or ROOT_PLACE, {})
            for name, value in self._defaults(section, path).items():
                if recorded.setdefault(name, value) != value:
                    newer[name] = value
                else:
                    newer.pop(name, None)
        return Defaults(first, {path: fields for path, fields in latest.items() if fields})

    def _distinct(self, value: Any, plain: Any, path: str, name: str) -> Any:
        if not isinstance(plain, dict):  # Far faster than to ask whether the value is a section.
            return plain
        if isinstance(value, Section):
            return self.distinct(value, plain, place(path, name, value))
        if isinstance(value, dict):
            return {
                key: self.distinct(item, plain[key], place(path, name, item, entry=True))
                if isinstance(item, Section)
                else plain[key]
                for key, item in value.items()
            }
        return plain

    def _is_first(self, section: type[Section], path: str, name: str, value: Any) -> bool:
        recorded = self.first.get(path or ROOT_PLACE, {})
        if name in recorded:
            return bool(recorded[name] == value)
        defaults = self._defaults(section, path)
        return name in defaults and bool(defaults[name] == value)

    def _defaults(self, section: type[Section], path: str) -> dict[str, Any]:
        """Current defaults of a class's identifying fields in the format of identities."""
        instance = section.model_construct()
        plain = instance.model_dump(mode="json")
        return {
            name: self._distinct(getattr(instance, name), plain[name], path, name)
            for name in identifying(section)
            if name in plain
        }

    def _completed(self, value: Any, here: str) -> Any:
        if not isinstance(value, dict):
            return value
        if f"{here}{_choice(value)}" in _classes():
            return self.completed(value, f"{here}{_choice(value)}")
        return {key: self._completed(item, f"{here}.<name>") for key, item in value.items()}

    def text(self) -> str:
        """The file's content, with one line per field."""
        tables = {"first": self.first, "latest": self.latest}
        return "{\n" + ",\n".join(f" {json.dumps(key)}: {_lines(table)}" for key, table in tables.items()) + "\n}\n"


@cache
def identifying(section: type[Section]) -> tuple[str, ...]:
    """Names of the fields that identities may leave out: all except `kind` and runtime fields."""
    return tuple(
        name
        for name, field in section.model_fields.items()
        if name != "kind" and not any(isinstance(item, Runtime) for item in field.metadata)
    )


@cache
def recorded() -> Defaults:
    """The content of `defaults.json`."""
    tables = json.loads(FILE.read_text(encoding="utf-8"))
    return Defaults(tables["first"], tables["latest"])


def document() -> str:
    """The content that `defaults.json` should have."""
    before = recorded() if FILE.is_file() else Defaults({}, {})
    return before.updated().text()


@cache
def _classes() -> dict[str, type[Section]]:
    return {path: section for path, section, _ in places()}


def _choice(value: dict[str, Any]) -> str:
    return f": {{kind: {value['kind']}}}" if "kind" in value else ""


def _lines(table: Table) -> str:
    sections = [
        f"  {json.dumps(path)}: {{\n"
        + ",\n".join(f"   {json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items())
        + "\n  }"
        for path, fields in sorted(table.items())
        if fields
    ]
    return "{\n" + ",\n".join(sections) + "\n }" if sections else "{}"
