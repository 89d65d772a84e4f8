"""Comparison of two folders of results: equal but for what names time, place and attempts."""

import json
from pathlib import Path
from typing import Any

OWN = {"seconds", "seconds_of", "commit", "changed", "_name_or_path"}
"""Keys of JSON whose values are of one run and place."""
OTHERS = ("jobs/", "tb/", "checkpoints/", ".turns/", "progress/", "logs/", "benchmark/", ".lock", ".conditions.lock")
"""Records of attempts, curves and checkpoints with times, and locks with the names of their holders."""


def differences(ours: Path, theirs: Path) -> list[str]:
    """Names of the files that one of the folders lacks, or whose content differs."""
    mine, other = _files(ours), _files(theirs)
    wrong = [f"{name} is {'extra' if name in mine else 'missing'}" for name in sorted(mine.keys() ^ other.keys())]
    wrong += [
        f"{name} differs" for name in sorted(mine.keys() & other.keys()) if _read(mine[name]) != _read(other[name])
    ]
    return wrong


def _files(folder: Path) -> dict[str, Path]:
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    return {name: path for name, path in paths.items() if not name.startswith(OTHERS)}


def _read(file: Path) -> Any:
    if file.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in file.read_text().splitlines()]
    return _timeless(json.loads(file.read_text())) if file.suffix == ".json" else file.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in OWN}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value
