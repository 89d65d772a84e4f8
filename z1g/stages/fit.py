"""Stage `fit`: splatter images of a chunk of objects."""

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file

from z1g.camera import INPUT_VIEWS, CameraOptions
from z1g.data.manifest import ObjectEntry
from z1g.data.reuse import chunks_made_before
from z1g.data.scenes import Scene, as_scene, chunk_file
from z1g.data.shards import BrokenObject, ShardReader
from z1g.device import use_threads
from z1g.files import atomic_file, read_jsonl, write_jsonl
from z1g.fit import Fit, Fitted
from z1g.fitting._queue import FitQueue, prefetched
from z1g.fitting.options import FitOptions
from z1g.pictures import on_white, save_png, to_bytes
from z1g.progress import Meter
from z1g.splat import to_gaussians
from z1g.stages import StageFolder

log = logging.getLogger("z1g")
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
    known = _fitted_before(folder, [entry for entry in folder.manifest().chunk(chunk) if entry.id in reader.ids])
    with Meter(f"fit chunk {chunk}", len(reader.ids), done=len(known)) as meter:

        def scenes() -> Iterator[Scene]:
            names = [name for name in reader.ids if name not in known]
            for name, scene in read_scenes(reader, names, config.camera, max(threads, 1)):
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
                pictures.append(_strip(fit, scene, fitted.splats))
    for name, (image, row) in known.items():
        splats[name], rows[name] = image, row
        if len(pictures) < SHEET_OBJECTS:
            with contextlib.suppress(BrokenObject):
                pictures.append(_strip(fit, as_scene(reader.read(name), config.camera.radius), image))
    with atomic_file(chunk_file(folder.path, chunk, "png")) as temporary:
        save_png(np.concatenate(pictures) if pictures else np.zeros((8, 8, 3), np.uint8), temporary)
    write_jsonl(chunk_file(folder.path, chunk, "jsonl"), [rows[name] for name in reader.ids])
    with atomic_file(chunk_file(folder.path, chunk, "safetensors")) as temporary:
        save_file(splats, temporary)


def _fitted_before(
    folder: StageFolder, objects: Sequence[ObjectEntry]
) -> dict[str, tuple[torch.Tensor, dict[str, Any]]]:
    """Splats and rows of objects that another data set's fit of the same recipe has."""
    found: dict[str, tuple[torch.Tensor, dict[str, Any]]] = {}
    for other, chunk, ids in chunks_made_before(folder.path, folder.recipe, objects):
        file = chunk_file(other, chunk, "safetensors")
        if set(ids) <= found.keys() or not file.is_file():
            continue
        rows = {row["id"]: row for row in read_jsonl(chunk_file(other, chunk, "jsonl"))}
        with safe_open(file, framework="pt") as tensors:
            whole = set(tensors.keys())
            found.update((name, (tensors.get_tensor(name), rows[name])) for name in ids if name in whole)
    if found:
        log.info("%d of %d objects are taken over from earlier data sets", len(found), len(objects))
    return found


def read_scenes(
    reader: ShardReader, names: Sequence[str], camera: CameraOptions, threads: int
) -> Iterator[tuple[str, Scene | str]]:
    """Objects of a shard with their ids, read ahead by threads; a reason instead of what cannot be used."""

    def read(name: str) -> tuple[str, Scene | str]:
        try:
            item = reader.read(name)
        except BrokenObject as error:
            return name, str(error)
        if len(item.c2w) != camera.n_views:
            return name, f"{len(item.c2w)} views where the configuration has {camera.n_views}"
        return name, as_scene(item, camera.radius)

    return prefetched(read, names, threads)


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
def _strip(fit: Fit, scene: Scene, splats: torch.Tensor) -> NDArray[np.uint8]:
    """Two inputs and one test view, truth beside render: a row of the picture sheet."""
    views = [INPUT_VIEWS[0], INPUT_VIEWS[3], fit.camera.test_ids[0]]
    output = fit.rasterizer.render(to_gaussians(splats[None]).to(fit.device), scene.cameras(views).to(fit.device))
    rgb, alpha = scene.pictures(views)
    truth = on_white(rgb, alpha)
    render = output.over(1.0)[0].cpu().clamp(0, 1)
    return to_bytes(torch.cat([*truth, *render], dim=-1))
