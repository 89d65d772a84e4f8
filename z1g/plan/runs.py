"""Runs that were planned in a results folder, by name."""

from __future__ import annotations

from pathlib import Path

from z1g.config.run_names import PART
from z1g.core.errors import UserError
from z1g.core.names import did_you_mean

FOLDER = "ablations"


def planned_runs(results: Path) -> list[str]:
    """Names of all planned runs, sorted, so that replicates follow each other."""
    return sorted(path.parent.name for path in results.glob(f"{FOLDER}/*/plan.json"))


def run_folder(text: str, results: Path) -> Path:
    """The folder that a path or the name of a run means: a folder as it is, or `<results>/ablations/<name>`.

    Raises UserError with the nearest name if there is neither.
    """
    path, named = Path(text), results / FOLDER / text
    if path.is_dir():
        return path
    if text and "/" not in text and (named / "plan.json").is_file():
        return named
    raise UserError(f'"{text}" is neither a folder nor a run of {results}{_nearest(text, planned_runs(results))}')


def _nearest(text: str, names: list[str]) -> str:
    """The nearest run, or else the studies that there are."""
    if not names:
        return ", which has no runs yet"
    near = did_you_mean(text, names)
    return near if "did you mean" in near else did_you_mean(text, {name.partition(PART)[0] for name in names})
