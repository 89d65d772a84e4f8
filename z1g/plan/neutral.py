"""Which options an identity leaves out, so that a new one changes no id as long as it has its default.

`defaults.json` records for every field of the tree the *first* default: the one that the field had when it was
recorded. An identity holds only the values that differ from it. What an absent field stands for is therefore fixed for
ever, and two configurations have one identity exactly where they agree:

- A field that is added at its default is absent, as it was before it existed: no id changes. At another value it is
  there. The same holds for a new section, a new slot and the options of a new kind.
- A default that changes differs from the recorded one: the ids of those who use the new default change, the ids of
  those who had set one of the two values do not.
- A mapping (losses, metrics) is one value: a default that gains an entry changes ids, as it changes results.
- A field that is taken out, renamed or moved out of identities (`Runtime`) stays recorded, with the *latest* default
  that it had. Where this is not the first, it is put into identities as if it were still there; otherwise results of
  the old default would pass for those of the new one.

`z1g config write` brings the file up to date: it appends fields, notes latest defaults, never rewrites a first default
and never takes a field out. A test fails until this is done. Only while a field has not been released may its lines
be deleted by hand, to record another default as its first.

A field that is not recorded yet counts as recorded with the default that it has.
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
"""JSON values by place of the section (see `z1g.config.walk.places`) and name of the field."""


class Defaults:
    """The recorded defaults. `latest` has only those that differ from `first`."""

    def __init__(self, first: Table, latest: Table) -> None:
        self.first, self.latest = first, latest

    def distinct(self, section: Section, values: dict[str, Any], path: str = "") -> dict[str, Any]:
        """The part of a section's values that identifies it.

        values: the section as plain values, whole or in part; names that are no fields are kept.
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
        """Fields that identities no longer have but must tell of, with the latest default of each."""
        latest = self.latest.get(path or ROOT_PLACE, {})
        return {name: value for name, value in latest.items() if name not in identifying(section)}

    def completed(self, values: dict[str, Any], path: str = "") -> dict[str, Any]:
        """The values of the section at a place as they were written, with first defaults for what did not exist yet.

        That is what the identity made with these values stands for, whatever the defaults are today. Values of kinds
        that are unknown stay as they are.
        """
        known = _classes()[path].model_fields.keys() & self.first.get(path or ROOT_PLACE, {}).keys()
        filled = {**{name: self.first[path or ROOT_PLACE][name] for name in known}, **values}
        return {name: self._completed(value, place(path, name)) for name, value in filled.items()}

    def updated(self, root: type[Section] = Experiment) -> Defaults:
        """With the fields and defaults that the tree has now."""
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
        """Today's defaults of a class's identifying fields, as identities would hold them."""
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
        """The file's content: a line for each field."""
        tables = {"first": self.first, "latest": self.latest}
        return "{\n" + ",\n".join(f" {json.dumps(key)}: {_lines(table)}" for key, table in tables.items()) + "\n}\n"


def identifying(section: type[Section]) -> list[str]:
    """Names of the fields that can be left out of an identity: all but `kind` and those outside of it."""
    return [
        name
        for name, field in section.model_fields.items()
        if name != "kind" and not any(isinstance(item, Runtime) for item in field.metadata)
    ]


@cache
def recorded() -> Defaults:
    """What `defaults.json` holds."""
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
