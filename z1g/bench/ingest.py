"""Benchmark of rendering: one Blender process per object, and a pool of processes."""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from z1g.bench.machine import versions
from z1g.core.errors import UserError
from z1g.data.manifest import ObjectEntry
from z1g.data.shards import RenderedObject
from z1g.geometry.camera import CameraOptions
from z1g.meshes.options import BlenderOptions
from z1g.sources.meshes import Meshes

MIN_VIEWS = 10
"""Condition, six inputs, and one view each for training, validation and test."""


def measure(
    paths: Sequence[str], objects: int, size: int, samples: int, views: int, repeats: int, threads: int | None = None
) -> dict[str, Any]:
    """Render the same objects both ways alternately, `repeats` times, on `threads` cores (default: all).

    "alone" starts a Blender process with all cores for each object, "pool" is what ingest does. objects_per_s is the
    best of the repeats and includes everything. seconds_of is the mean over the pool's objects, measured within
    Blender. Raises UserError if no object can be rendered.
    """
    if views < MIN_VIEWS:
        raise UserError(f"--views {views}: an object has at least {MIN_VIEWS} views")
    threads = threads or len(os.sched_getaffinity(0))
    camera = CameraOptions(train_views=views - MIN_VIEWS + 1, validation_views=1, test_views=1)
    options = BlenderOptions(resolution=size, samples=samples)
    alone = Meshes(paths=tuple(paths), blender=options.model_copy(update={"processes": 1, "restart_after": 1}))
    pool = Meshes(paths=tuple(paths), blender=options)
    entries = pool.list_objects()[:objects]
    rates: dict[str, list[float]] = {"alone": [], "pool": []}
    for _ in range(repeats):
        for name, data in (("alone", alone), ("pool", pool)):
            seconds, rendered, seconds_of, renderer = _run(data, entries, camera, threads)
            rates[name].append(rendered / seconds)
    return {
        "objects": rendered,
        "quarantined": len(entries) - rendered,
        "size": size,
        "samples": samples,
        "views": views,
        "objects_per_s": {name: round(max(values), 3) for name, values in rates.items()},
        "ratio": round(max(rates["pool"]) / max(rates["alone"]), 2),
        "ratios": [round(b / a, 2) for a, b in zip(rates["alone"], rates["pool"], strict=True)],
        "seconds_of": seconds_of,
        "cores": threads,
        "renderer": renderer,
        "versions": versions(),
    }


def _run(
    data: Meshes, entries: Sequence[ObjectEntry], camera: CameraOptions, threads: int
) -> tuple[float, int, dict[str, float], str]:
    """Wall seconds, number of rendered objects, mean seconds of each part, and Blender's version."""
    total: Counter[str] = Counter()
    done: list[RenderedObject] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="z1g-bench-") as scratch:
        for ingested in data.ingest(entries, camera, Path(scratch), threads):
            if isinstance(ingested.outcome, RenderedObject):
                total.update(ingested.seconds)
                done.append(ingested.outcome)
        seconds = time.perf_counter() - began
    if not done:
        raise UserError("none of the objects could be rendered; `z1g ingest` reports the reasons")
    return seconds, len(done), {part: round(t / len(done), 4) for part, t in total.items()}, done[0].info["renderer"]
