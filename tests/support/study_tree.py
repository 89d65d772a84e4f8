"""Made-up results of studies: plans of runs with points and replicates, and metrics that follow a known function."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

METRICS = {
    "psnr": {"label": "PSNR", "unit": "dB", "higher_is_better": True, "reference": "10·log10(1/MSE)"},
    "chamfer": {"label": "Chamfer", "unit": "size", "higher_is_better": False, "scope": "object"},
}
OBJECTS = ("chair", "horse")

Point = dict[str, Any]


def grid(**values: Iterable[Any]) -> list[Point]:
    """All combinations; a double underscore in a name stands for a dot of the key path."""
    points: list[Point] = [{}]
    for name, levels in values.items():
        points = [{**point, name.replace("__", "."): level} for point in points for level in levels]
    return points


def write_run(
    root: Path, name: str, psnr: float | None, plan: dict[str, Any], config: dict[str, Any] | None = None
) -> None:
    """One planned run, and its measurement unless `psnr` is None: every object deviates from it by a fixed amount."""
    identity = f"me-{name}"
    folder = root / "ablations" / name
    about = {"name": name, "description": "", "base": "scratch", "stages": {"metrics": identity}, **plan}
    _write(folder / "plan.json", [about])
    _write(folder / "config.json", [config or {}])
    if psnr is None:
        return
    rows, objects = [], []
    for number, item in enumerate(OBJECTS):
        head = {"object": item, "split": "test", "source": "sampled"}
        value = psnr + (1.0 if number else -1.0)
        rows += [{**head, "view": view, "azimuth_deg": 90.0 * view, "psnr": value} for view in range(2)]
        objects.append({**head, "chamfer": 0.2 - value / 500})
    _write(root / "metrics" / identity / "metrics.jsonl", rows)
    _write(root / "metrics" / identity / "objects.jsonl", objects)
    _write(root / "metrics" / identity / "metrics.json", [{"metrics": METRICS, "versions": {}, "commit": "abc1234def"}])


def write_study(
    root: Path,
    study: str,
    points: list[Point],
    psnr: Callable[[Point], float],
    *,
    seeds: int = 1,
    noise: float = 0.0,
    pruned: Iterable[int] = (),
) -> list[str]:
    """Write a run for every point and seed, and return their names.

    `noise` is the standard deviation between replicates; points of `pruned` were pruned and have no measurement.
    """
    draw = np.random.default_rng(11)
    names = []
    for number, point in enumerate(points):
        own = ",".join(f"{key.split('.')[-1]}={value}" for key, value in point.items())
        arm = f"{study}@{own}"
        for seed in range(seeds):
            name = f"{arm}@seed={seed}" if seeds > 1 else arm
            plan: dict[str, Any] = {"study": study, "arm": arm, "point": point, "seed": seed, "replicated": ["unet"]}
            value: float | None = psnr(point) + noise * float(draw.normal())
            if number in pruned:
                plan["pruned"] = {"rung": 0.1, "value": 12.0, "by": "validation_psnr"}
                value = None
            write_run(root, name, value, plan)
            names.append(name)
    return names


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write without waiting for the disk: studies have hundreds of files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
