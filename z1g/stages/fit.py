"""Stage `fit`: splatter images of a chunk of objects."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from z1g.camera import INPUT_VIEWS
from z1g.data.scenes import Scene, as_scene, chunk_file
from z1g.data.shards import ShardReader
from z1g.device import use_threads
from z1g.files import atomic_file, write_jsonl
from z1g.fit import Fit, Fitted
from z1g.pictures import on_white, save_png, to_bytes
from z1g.progress import track
from z1g.splat import to_gaussians
from z1g.stages import StageFolder

SHEET_OBJECTS = 8
"""Objects of a chunk that appear on its picture sheet."""


def run(folder: StageFolder, chunk: int, threads: int) -> None:
    """Fit every object of a chunk; write splats, a quality table and a picture sheet."""
    use_threads(threads)
    config = folder.config
    reader = ShardReader(chunk_file(folder.upstream_path("ingest"), chunk, "tar"))
    splats: dict[str, torch.Tensor] = {}
    rows: list[dict[str, Any]] = []
    pictures: list[np.ndarray[Any, Any]] = []
    for scene in track(_scenes(reader, config.camera.radius), f"fit chunk {chunk}", len(reader.ids)):
        fit = Fit(scene, config.fit, config.splat.size, config.render)
        fitted = fit.run(config.camera.train_ids, config.camera.validation_ids)
        rows.append(_row(scene, fitted, config.fit.min_psnr))
        if not math.isfinite(fitted.psnr):
            continue
        splats[scene.id] = fitted.splats
        if len(pictures) < SHEET_OBJECTS:
            pictures.append(_strip(fit, scene, fitted, config.camera.validation_ids[0]))
    with atomic_file(chunk_file(folder.path, chunk, "png")) as temporary:
        save_png(np.concatenate(pictures) if pictures else np.zeros((8, 8, 3), np.uint8), temporary)
    write_jsonl(chunk_file(folder.path, chunk, "jsonl"), rows)
    with atomic_file(chunk_file(folder.path, chunk, "safetensors")) as temporary:
        save_file(splats, temporary)


def _scenes(reader: ShardReader, radius: float) -> Iterator[Scene]:
    return (as_scene(reader.read(name), radius) for name in reader.ids)


def _row(scene: Scene, fitted: Fitted, min_psnr: float) -> dict[str, Any]:
    finite = math.isfinite(fitted.psnr)
    return {
        "id": scene.id,
        "status": "ok" if finite else "quarantined",
        "reason": "" if finite else "the fit diverged: its renders are not finite",
        "psnr": round(fitted.psnr, 3) if finite else None,
        "steps": fitted.steps,
        "seconds": round(fitted.seconds, 3),
        "below_minimum": not finite or fitted.psnr < min_psnr,
    }


@torch.no_grad()
def _strip(fit: Fit, scene: Scene, fitted: Fitted, free_view: int) -> np.ndarray[Any, Any]:
    """One input and one unseen view, truth beside render: a row of the picture sheet."""
    views = [INPUT_VIEWS[0], INPUT_VIEWS[3], free_view]
    output = fit.rasterizer.render(
        to_gaussians(fitted.splats[None]).to(fit.device), scene.cameras(views).to(fit.device)
    )
    rgb, alpha = scene.pictures(views)
    truth = on_white(rgb, alpha)
    render = output.over(1.0)[0].cpu().clamp(0, 1)
    return to_bytes(torch.cat([*truth, *render], dim=-1))
