"""Benchmark of fits: speed and quality by number of steps."""

import logging
import math
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from z1g.bench.machine import MIB, device_name, versions
from z1g.core.errors import UserError
from z1g.data.manifest import Manifest
from z1g.data.scenes import Scene, chunk_file
from z1g.data.shards import ShardReader
from z1g.fitting.optimize import Fit, Fitted
from z1g.fitting.options import AttributeRates, FitOptions
from z1g.fitting.queue import FitQueue
from z1g.plan.folder import StageFolder
from z1g.render import Rasterizer
from z1g.render.diff_gaussian import DiffGaussian
from z1g.stages.fit import read_scenes
from z1g.training.schedules.plateau import Plateau

WARM_UP_STEPS = 3
THREADS = 4
log = logging.getLogger(__name__)


def measure(path: Path, objects: int, budgets: Sequence[int], *, original_way: bool = False) -> dict[str, Any]:
    """Fit `objects` (0: all) of a fit stage's folder with its configuration, once per number of steps in `budgets`.

    objects_per_s includes everything except reading the renders. With `original_way`, one object is also fitted the
    original's way. Raises UserError if there are no renders yet.
    """
    folder = StageFolder.open(path)
    scenes = _scenes(folder, objects)
    options: FitOptions = folder.config.fit
    rasterizer: Rasterizer = folder.config.render

    def time_fit(options: FitOptions, rasterizer: Rasterizer, scenes: Sequence[Scene]) -> dict[str, Any]:
        return _measure(Fit(options, folder.config.splat.size, rasterizer, folder.config.camera), scenes)

    time_fit(options.model_copy(update={"steps": WARM_UP_STEPS}), rasterizer, scenes[:2])
    runs = [time_fit(options.model_copy(update={"steps": steps}), rasterizer, scenes) for steps in budgets]
    figures = {
        "objects": len(scenes),
        "splat_size": folder.config.splat.size,
        "image_size": scenes[0].rgba.shape[1],
        "runs": runs,
        "device": device_name("cuda" if torch.cuda.is_available() else "cpu"),
        "versions": versions(),
    }
    if original_way:
        figures["original_way"] = original = time_fit(original_options(), DiffGaussian(), scenes[:1])
        figures["ratio_to_original_way"] = round(runs[-1]["objects_per_s"] / original["objects_per_s"], 1)
    return figures


def original_options() -> FitOptions:
    """The original's fit: AdamW, 2,000 steps of 20 views, a plateau schedule on the evaluation loss, the last state."""
    rate = 3e-3
    return FitOptions(
        rotation_norm="splats",
        steps=2000,
        views_per_step=20,
        draws="uniform",
        rates=AttributeRates(
            position=rate, position_unit="normalized", opacity=rate, scale=rate, rotation=rate, rgb=rate
        ),
        schedule=Plateau(patience=20, factor=0.5, min_lr=0.0),
        betas=(0.9, 0.95),
        weight_decay=0.05,
        clip_norm=1.0,
        evaluate_every=50,
        patience=2000,
        keep="last",
    )


def _scenes(folder: StageFolder, limit: int) -> list[Scene]:
    ingest = folder.upstream_path("ingest")
    shards = [chunk_file(ingest, chunk, "tar") for chunk in range(Manifest.load(ingest / "manifest.jsonl").n_chunks)]
    readers = [ShardReader(shard) for shard in shards if shard.is_file()]
    objects = chain.from_iterable(read_scenes(reader, reader.ids, folder.config.camera, THREADS) for reader in readers)
    scenes: list[Scene] = []
    for _, scene in objects:
        if isinstance(scene, Scene):
            scenes.append(scene)
        if len(scenes) == limit:
            break
    if not scenes:
        raise UserError(f"{ingest} holds no renders yet; run `z1g ingest` or snakemake first")
    return scenes


def _measure(fit: Fit, scenes: Sequence[Scene]) -> dict[str, Any]:
    cuda = fit.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    results = [fitted for _, fitted in FitQueue(fit).run(scenes)]
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    row = {
        "steps": fit.options.steps,
        "seconds": round(seconds, 3),
        "objects_per_s": round(len(scenes) / seconds, 4),
        "psnr": _mean(results, "psnr"),
        "ssim": _mean(results, "ssim"),
        "least_psnr": round(min(fitted.psnr for fitted in results), 3),
        "memory_mib": round(torch.cuda.max_memory_allocated() / MIB) if cuda else None,
    }
    log.info("fit of %d objects: %s", len(scenes), row)
    return row


def _mean(results: Sequence[Fitted], name: str) -> float:
    return round(math.fsum(getattr(fitted, name) for fitted in results) / len(results), 4)
