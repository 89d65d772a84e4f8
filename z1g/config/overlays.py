"""What a point, a fold and a replicate change, as overlays that know their lines in the file.

A mistake in a value of a sweep is therefore named where the value is, as one in any other file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from z1g.config.header import HEADER_KEYS
from z1g.config.replicates import Replicates, seed_paths
from z1g.config.resolve import merge
from z1g.config.sweep import Point
from z1g.config.tree import Experiment
from z1g.config.yaml_file import KeyPath, YamlFile
from z1g.core.errors import UserError


def point_overlay(point: Point, file: YamlFile) -> YamlFile:
    """The values of a point. A key path inside of another one is merged into the other's value.

    Raises UserError for keys of the header, which are no options.
    """
    values: dict[str, Any] = {}
    lines: dict[KeyPath, int] = {}
    for dotted in sorted(point.values, key=lambda path: path.count(".")):
        path, place = tuple(dotted.split(".")), point.places[dotted]
        values = merge(values, _nested(path, point.values[dotted]))
        line = _line(file, place)
        if path[0] in HEADER_KEYS:
            raise UserError(f"{file.path}:{line}: {dotted}: is no option of the experiment, which a sweep varies")
        lines |= {path[:n]: line for n in range(1, len(path) + 1)}
        inside = {key[len(place) :]: number for key, number in file.lines.items() if key[: len(place)] == place}
        lines |= {(*path, *key): number for key, number in inside.items() if key}
    return YamlFile(file.path, values, lines)


def fold_overlay(folds: int, fold: int, path: Path, line: int) -> YamlFile:
    """The split of one fold."""
    return _overlay({("data", "split", "folds"): folds, ("data", "split", "fold"): fold}, path, line)


def seed_overlay(experiment: Experiment, replicates: Replicates, number: int, path: Path, line: int) -> YamlFile:
    """The random seeds of replicate `number` of an experiment; empty for replicate 0."""
    if number == 0:
        return YamlFile(path, {})
    seeds = seed_paths(experiment.model_dump(mode="json"), replicates.replicated)
    return _overlay({key: seed + number for key, seed in seeds.items()}, path, line)


def _overlay(values: dict[KeyPath, Any], path: Path, line: int) -> YamlFile:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        nested = merge(nested, _nested(key, value))
    return YamlFile(path, nested, dict.fromkeys(values, line))


def _nested(path: KeyPath, value: Any) -> Any:
    for part in reversed(path):
        value = {part: value}
    return value


def _line(file: YamlFile, place: KeyPath) -> int:
    """Line of a place in the file or of the nearest one above it."""
    return next((file.lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in file.lines), 1)
