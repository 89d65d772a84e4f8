"""Stage `fit`: splatter images of a chunk of objects."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from z1g.camera import INPUT_VIEWS, CameraOptions
from z1g.data.scenes import Scene, as_scene, chunk_file
from z1g.data.shards import BrokenObject, ShardReader
from z1g.device import use_threads
from z1g.files import atomic_file, write_jsonl
from z1g.fit import Fit, Fitted
from z1g.fitting._queue import FitQueue, prefetched
from z1g.fitting.options import FitOptions
from z1g.pictures import on_white, save_png, to_bytes
from z1g.progress import Meter
from z1g.splat import to_gaussians
from z1g.stages import StageFolder

SHEET_OBJECTS = 8
"""Objects of a chunk that appear on its picture sheet."""


def run(folder: StageFolder, chunk: int, threads: int) -> None:
    """Fit every object of a chunk; write splats, a quality table and a picture sheet."""
    use_threads(threads)
    config = folder.config
    reader = ShardReader(chunk_file(folder.upstream_path("ingest"), chunk, "tar"))
    fit = Fit(config.fit, config.splat.size, config.render, config.camera)
    splats: dict[str, torch.Tensor] = {}
    rows: dict[str, dict[str, Any]] = {}
    pictures: list[NDArray[np.uint8]] = []
    with Meter(f"fit chunk {chunk}", len(reader.ids)) as meter:

        def scenes() -> Iterator[Scene]:
            for name, scene in read_scenes(reader, config.camera, max(threads, 1)):
                if isinstance(scene, Scene):
                    yield scene
                else:
                    rows[name] = _quarantined(name, scene)
                    meter.advance()

        for scene, fitted in FitQueue(fit).run(scenes()):
            rows[scene.id] = _row(scene, fitted, config.fit)
            meter.advance(psnr=fitted.psnr)
            if rows[scene.id]["status"] != "ok":
                continue
            splats[scene.id] = fitted.splats
            if len(pictures) < SHEET_OBJECTS:
                pictures.append(_strip(fit, scene, fitted))
    with atomic_file(chunk_file(folder.path, chunk, "png")) as temporary:
        save_png(np.concatenate(pictures) if pictures else np.zeros((8, 8, 3), np.uint8), temporary)
    write_jsonl(chunk_file(folder.path, chunk, "jsonl"), [rows[name] for name in reader.ids])
    with atomic_file(chunk_file(folder.path, chunk, "safetensors")) as temporary:
        save_file(splats, temporary)


def read_scenes(reader: ShardReader, camera: CameraOptions, threads: int) -> Iterator[tuple[str, Scene | str]]:
    """Every object of a shard with its id, read ahead by threads; a reason instead of what cannot be used."""

    def read(name: str) -> tuple[str, Scene | str]:
        try:
            item = reader.read(name)
        except BrokenObject as error:
            return name, str(error)
        if len(item.c2w) != camera.n_views:
            return name, f"{len(item.c2w)} views where the configuration has {camera.n_views}"
        return name, as_scene(item, camera.radius)

    return prefetched(read, reader.ids, threads)


def _row(scene: Scene, fitted: Fitted, options: FitOptions) -> dict[str, Any]:
    if not math.isfinite(fitted.psnr):
        return _quarantined(scene.id, "the fit diverged: its renders are not finite")
    below = fitted.psnr < options.min_psnr
    dropped = below and options.below_minimum == "drop"
    return {
        "id": scene.id,
        "status": "quarantined" if dropped else "ok",
        "reason": f"{fitted.psnr:.1f} dB is below fit.min_psnr {options.min_psnr:g}" if dropped else "",
        "psnr": round(fitted.psnr, 3),
        "ssim": round(fitted.ssim, 4),
        "validation_psnr": round(fitted.validation_psnr, 3),
        "steps": fitted.steps,
        "seconds": round(fitted.seconds, 3),
        "below_minimum": below,
    }


def _quarantined(name: str, reason: str) -> dict[str, Any]:
    empty = dict.fromkeys(("psnr", "ssim", "validation_psnr", "steps", "seconds"))
    return {"id": name, "status": "quarantined", "reason": reason, **empty, "below_minimum": True}


@torch.no_grad()
def _strip(fit: Fit, scene: Scene, fitted: Fitted) -> NDArray[np.uint8]:
    """Two inputs and one test view, truth beside render: a row of the picture sheet."""
    views = [INPUT_VIEWS[0], INPUT_VIEWS[3], fit.camera.test_ids[0]]
    output = fit.rasterizer.render(
        to_gaussians(fitted.splats[None]).to(fit.device), scene.cameras(views).to(fit.device)
    )
    rgb, alpha = scene.pictures(views)
    truth = on_white(rgb, alpha)
    render = output.over(1.0)[0].cpu().clamp(0, 1)
    return to_bytes(torch.cat([*truth, *render], dim=-1))
