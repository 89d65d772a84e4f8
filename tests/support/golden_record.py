"""The recorded figures of `tests/golden/figures.json`, and the comparison with them.

The figures of a stage are recorded with its version and the versions of all stages upstream, which its id depends on.
If one of these versions is higher than recorded, other figures are results with other ids. If none is, they would be
other results with the same ids.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.golden_figures import Figures
from support.paths import TESTS
from z1g.plan.stages import STAGES

FILE = TESTS / "golden" / "figures.json"
COMMAND = "python -m pytest tests/golden --write-golden"
TOLERANCE = 1e-3
"""Relative to the figure; for the mean of a tensor, to its root mean square.

Differences between instruction sets (AVX-512, AVX2, none), convolution libraries, and versions of torch, transformers,
diffusers, peft and numpy were at most 1.5e-4."""
DIGITS = 5
SHOWN = 5
Entry = dict[str, Any]
"""The record of a stage: version, upstream (versions by stage) and figures (by run)."""


def entry_of(stage: str, figures: dict[str, Figures]) -> Entry:
    """The record of a stage with its current versions."""
    spec = STAGES[stage]
    upstream = {name: STAGES[name].version for name in spec.upstream}
    return {"version": spec.version, "upstream": upstream, "figures": rounded(figures)}


def rounded(value: Any) -> Any:
    """Round all numbers in nested values to a few significant digits."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")


def differences(recorded: dict[str, Figures], figures: dict[str, Figures], tolerance: float = TOLERANCE) -> list[str]:
    """One line for each figure that differs."""
    lines = []
    for run in sorted(recorded.keys() | figures.keys()):
        before, now = recorded.get(run, {}), figures.get(run, {})
        for name in sorted(before.keys() | now.keys()):
            old, new = before.get(name), now.get(name)
            if not _close(old, new, tolerance):
                lines.append(f"{run}: {name}: {_shown(new)}, was {_shown(old)}")
    return lines


def verdict(
    stage: str, figures: dict[str, Figures], recorded: Entry | None, tolerance: float = TOLERANCE
) -> str | None:
    """Message of the stage's golden test: what failed and what to do; None if the figures agree."""
    now = entry_of(stage, figures)
    if recorded is None:
        return f"stage '{stage}' has no golden figures; write them: {COMMAND}"
    raised = [f"{name} {old} -> {new}" for name, old, new in _versions(recorded, now, stage) if old != new]
    if raised:
        versions = ", ".join(raised)
        return f"the golden figures of stage '{stage}' are of other versions ({versions}); write new ones: {COMMAND}"
    lines = differences(recorded["figures"], figures, tolerance)
    if not lines:
        return None
    if only_added(recorded["figures"], figures, tolerance):
        return (
            f"stage '{stage}' has figures that were not recorded, and all others are as before: its results are the "
            "same.\n  " + "\n  ".join(lines[:SHOWN]) + f"\nWrite them: {COMMAND}"
        )
    more = f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return (
        f"the results of stage '{stage}' have changed, but its version is still {now['version']}: its ids would stay "
        f"the same, and earlier results would be mistaken for results of this code.\n  "
        + "\n  ".join(lines[:SHOWN])
        + f"{more}\nIf the change is intended, raise the version of '{stage}' in z1g/plan/stages.py, then write new "
        f"figures: {COMMAND}\nIf it is not, it is a bug."
    )


def may_write(stage: str, recorded: Entry | None, figures: dict[str, Figures], tolerance: float = TOLERANCE) -> bool:
    """Whether new figures may be written: the ids of the stage have changed since, or figures were only added."""
    if recorded is None or any(old != new for _, old, new in _versions(recorded, entry_of(stage, {}), stage)):
        return True
    before = recorded["figures"]
    return bool(differences(before, figures, tolerance)) and only_added(before, figures, tolerance)


def only_added(recorded: dict[str, Figures], figures: dict[str, Figures], tolerance: float = TOLERANCE) -> bool:
    """Whether every recorded figure is there and agrees."""
    known = {run: {name: figures.get(run, {}).get(name) for name in of} for run, of in recorded.items()}
    return not differences(recorded, known, tolerance)  # type: ignore[arg-type]


def read(file: Path = FILE) -> dict[str, Entry]:
    """All entries by stage."""
    entries: dict[str, Entry] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return entries


def write(name: str, entry: Entry, file: Path = FILE) -> None:
    """Write one entry to the file and keep the others."""
    entries = {**read(file), name: entry}
    file.write_text(_text(dict(sorted(entries.items()))) + "\n", encoding="utf-8")


def _versions(recorded: Entry, now: Entry, stage: str) -> list[tuple[str, int | None, int | None]]:
    names = recorded["upstream"].keys() | now["upstream"].keys()
    upstream = [(name, recorded["upstream"].get(name), now["upstream"].get(name)) for name in sorted(names)]
    return [(stage, recorded["version"], now["version"]), *upstream]


def _close(old: Any, new: Any, tolerance: float) -> bool:
    if old is None or new is None:
        return False
    pairs = list(zip(old, new, strict=True)) if isinstance(old, list) and isinstance(new, list) else [(old, new)]
    size = max(abs(number) for pair in pairs for number in pair)
    return all(abs(a - b) <= tolerance * size for a, b in pairs)


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(rounded(value))


def _text(value: Any, depth: int = 0) -> str:
    """JSON with a line for each figure."""
    if not isinstance(value, dict) or depth == 4:
        return json.dumps(value)
    pad = " " * (depth + 1)
    items = [f"{pad}{json.dumps(name)}: {_text(item, depth + 1)}" for name, item in value.items()]
    return "{\n" + ",\n".join(items) + "\n" + " " * depth + "}"
