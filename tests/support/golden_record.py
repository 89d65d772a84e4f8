"""The recorded figures of `tests/golden/figures.json`, and what a comparison with them says.

A stage's figures are kept with its version and those of the stages upstream: its id is a digest of these. So where one
of them has been raised, other figures are other results under other ids; where none has, they would be other results
under the old ids.
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
"""Relative to a number's own size, for a tensor's mean to its root mean square. Five times what the instruction set,
the library of convolutions or another version of torch, transformers and diffusers were seen to change."""
DIGITS = 5
SHOWN = 5
Entry = dict[str, Any]
"""What the file has of a stage: version, upstream (versions by stage) and figures (by run)."""


def entry_of(stage: str, figures: dict[str, Figures]) -> Entry:
    """What the file should have of a stage."""
    spec = STAGES[stage]
    upstream = {name: STAGES[name].version for name in spec.upstream}
    return {"version": spec.version, "upstream": upstream, "figures": rounded(figures)}


def rounded(value: Any) -> Any:
    """Numbers to a few significant digits, in whatever holds them."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")


def differences(recorded: dict[str, Figures], found: dict[str, Figures], tolerance: float = TOLERANCE) -> list[str]:
    """What differs, a line each."""
    lines = []
    for run in sorted(recorded.keys() | found.keys()):
        before, now = recorded.get(run, {}), found.get(run, {})
        for name in sorted(before.keys() | now.keys()):
            old, new = before.get(name), now.get(name)
            if not _close(old, new, tolerance):
                lines.append(f"{run}: {name}: {_shown(new)}, was {_shown(old)}")
    return lines


def verdict(stage: str, found: dict[str, Figures], recorded: Entry | None, tolerance: float = TOLERANCE) -> str | None:
    """Why the stage's golden test fails, and what to do; None where it holds."""
    now = entry_of(stage, found)
    if recorded is None:
        return f"stage '{stage}' has no golden figures; write them: {COMMAND}"
    raised = [f"{name} {old} -> {new}" for name, old, new in _versions(recorded, now, stage) if old != new]
    if raised:
        versions = ", ".join(raised)
        return f"golden figures of stage '{stage}' are those of other versions ({versions}); write new ones: {COMMAND}"
    lines = differences(recorded["figures"], found, tolerance)
    if not lines:
        return None
    more = f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return (
        f"stage '{stage}' gives other results than it did, and its version is still {now['version']}: its ids would "
        f"stay, and results made before would pass for results of this code.\n  "
        + "\n  ".join(lines[:SHOWN])
        + f"{more}\nIf the change is meant: raise StageSpec.version of '{stage}' in z1g/plan/stages.py, then write new "
        f"figures: {COMMAND}\nIf it is not, it is a fault."
    )


def may_write(stage: str, recorded: Entry | None) -> bool:
    """Whether new figures of a stage would be figures of new ids."""
    return recorded is None or any(old != new for _, old, new in _versions(recorded, entry_of(stage, {}), stage))


def read(file: Path = FILE) -> dict[str, Entry]:
    """All entries by stage."""
    entries: dict[str, Entry] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return entries


def write(name: str, entry: Entry, file: Path = FILE) -> None:
    """Put one entry into the file, whose other entries stay as they are."""
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
