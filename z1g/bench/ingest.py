"""Benchmarks of rendering: one Blender process per object and a pool of processes; one renderer and another."""

import os
import resource
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from z1g.bench.machine import versions
from z1g.core.errors import UserError
from z1g.data.manifest import ObjectEntry
from z1g.data.shards import EncodedObject, Rejected, RenderedObject, write_object
from z1g.geometry.camera import CameraOptions
from z1g.meshes.renderers import Blender, Raster, Renderer
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
    threads = threads or len(os.sched_getaffinity(0))
    camera = _camera(views)
    options = Blender(resolution=size, samples=samples)
    alone = Meshes(paths=tuple(paths), renderer=options.model_copy(update={"processes": 1, "restart_after": 1}))
    pool = Meshes(paths=tuple(paths), renderer=options)
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
    done: list[RenderedObject | EncodedObject] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="z1g-bench-") as scratch:
        for ingested in data.ingest(entries, camera, Path(scratch), threads):
            if not isinstance(ingested.outcome, Rejected):
                total.update(ingested.seconds)
                done.append(ingested.outcome)
        seconds = time.perf_counter() - began
    if not done:
        raise UserError("none of the objects could be rendered; `z1g ingest` reports the reasons")
    return seconds, len(done), {part: round(t / len(done), 4) for part, t in total.items()}, done[0].info["renderer"]


def compare(
    paths: Sequence[str], objects: int, size: int, samples: int, views: int, repeats: int, names: Sequence[str],
    threads: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Render the same objects into shards with several renderers alternately, `repeats` times, on `threads` cores.

    samples: of Blender; the rasterizer has its own. Everything counts: start, import, rendering, encoding, writing. The
    fastest of the repeats is reported; core_s is the time of all processes on all cores. Raises UserError if a renderer
    renders nothing.
    """
    threads = threads or len(os.sched_getaffinity(0))
    camera = _camera(views)
    renderers: dict[str, Renderer] = {
        "blender": Blender(resolution=size, samples=samples), "raster": Raster(resolution=size)
    }  # fmt: skip
    entries = Meshes(paths=tuple(paths)).list_objects()[:objects]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            data = Meshes(paths=tuple(paths), renderer=renderers[name])
            runs[name].append(_shard(data, entries, camera, threads))
    best = {name: min(done, key=lambda run: run["core_s_an_object"]) for name, done in runs.items()}
    ratios = {
        f"{name} / {names[0]}, {figure}": round(best[name][figure] / best[names[0]][figure], 2)
        for name in names[1:]
        for figure in ("core_s_an_object", "seconds_an_object", "bytes_an_object")
    }
    sizes = {"objects": len(entries), "size": size, "samples": samples, "views": views, "cores": threads}
    return {**sizes, "renderers": best, "ratios": ratios, "versions": versions()}


def _shard(data: Meshes, entries: Sequence[ObjectEntry], camera: CameraOptions, threads: int) -> dict[str, Any]:
    """Figures of rendering the objects into a shard."""
    total: Counter[str] = Counter()
    done, renderer, began, cores = 0, "", time.perf_counter(), _core_seconds()
    with tempfile.TemporaryDirectory(prefix="z1g-bench-") as scratch, tarfile.open(Path(scratch, "shard"), "w") as tar:
        for ingested in data.ingest(entries, camera, Path(scratch), threads):
            if isinstance(ingested.outcome, Rejected):
                continue
            write_object(tar, ingested.outcome)
            total.update(ingested.seconds)
            done, renderer = done + 1, ingested.outcome.info["renderer"]
        written, seconds, cores = tar.offset, time.perf_counter() - began, _core_seconds() - cores
    if not done:
        raise UserError("none of the objects could be rendered; `z1g ingest` reports the reasons")
    return {
        "renderer": renderer,
        "rendered": done,
        "seconds_an_object": round(seconds / done, 4),
        "views_per_s": round(done * camera.n_views / seconds, 2),
        "core_s_an_object": round(cores / done, 4),
        "bytes_an_object": round(written / done),
        "seconds_of": {part: round(t / done, 4) for part, t in total.items()},
    }


def _core_seconds() -> float:
    """Time on cores of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _camera(views: int) -> CameraOptions:
    if views < MIN_VIEWS:
        raise UserError(f"--views {views}: an object has at least {MIN_VIEWS} views")
    return CameraOptions(train_views=views - MIN_VIEWS + 1, validation_views=1, test_views=1)
