"""Stage `fit`: splatter images of a chunk of objects."""

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from z1g.core.device import use_threads
from z1g.core.files import atomic_file, write_jsonl
from z1g.core.names import counted
from z1g.core.prefetch import prefetched
from z1g.core.progress import Meter
from z1g.core.recorded import is_recorded
from z1g.data.manifest import ObjectEntry
from z1g.data.reuse import chunks_made_before
from z1g.data.scenes import Scene, as_scene, chunk_file
from z1g.data.shards import BrokenObject, ShardReader
from z1g.data.splat_files import SplatFile, with_checksums
from z1g.data.stored_splats import stored
from z1g.fitting.optimize import Fit, Fitted
from z1g.fitting.options import FitOptions
from z1g.fitting.queue import FitQueue
from z1g.gaussians.channels import to_gaussians
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions
from z1g.plan.folder import StageFolder
from z1g.render.images import on_white, save_png, to_bytes
from z1g.report.clipping import of_fits
from z1g.sources.original import Original
from z1g.stages import clipping

log = logging.getLogger("z1g")
SHEET_OBJECTS = 8
"""Number of objects of a chunk that its contact sheet shows."""


def run(folder: StageFolder, chunk: int, threads: int) -> None:
    """Fit every object of a chunk, or use given splats; write splats, a table of quality and a contact sheet."""
    use_threads(threads)
    reader = ShardReader(chunk_file(folder.upstream_path("ingest"), chunk, "tar"))
    listed = folder.manifest().chunk(chunk)
    reader.require_only(listed)
    objects = [entry for entry in listed if entry.id in reader.ids]
    reused = _fitted_before(folder, objects)
    with Meter(f"fit chunk {chunk}", len(reader.ids), done=len(reused)) as meter:
        results = _Chunk(folder, reader, meter)
        remaining = [entry for entry in objects if entry.id not in reused]
        for scene, fitted in results.fitted(remaining, max(threads, 1)):
            results.add(scene, fitted)
    for name, (splats, row) in reused.items():
        results.take_over(name, splats, row)
    with atomic_file(chunk_file(folder.path, chunk, "png")) as temporary:
        save_png(results.sheet(), temporary)
    written = {name: stored(splats, folder.config.fit.stored) for name, splats in results.splats.items()}
    rows = with_checksums([results.rows[name] for name in reader.ids], written)
    for sentence in of_fits(rows).values():
        log.info("%s", sentence)
    write_jsonl(chunk_file(folder.path, chunk, "jsonl"), rows)
    with atomic_file(chunk_file(folder.path, chunk, "safetensors")) as temporary:
        save_file(written, temporary)


class _Chunk:
    """Collects the results of a chunk."""

    def __init__(self, folder: StageFolder, reader: ShardReader, meter: Meter) -> None:
        self.config, self.reader, self.meter = folder.config, reader, meter
        self.fit = Fit(self.config.fit, self.config.splat.size, self.config.render, self.config.camera)
        self.splats: dict[str, torch.Tensor] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.images: list[NDArray[np.uint8]] = []

    def fitted(self, objects: Sequence[ObjectEntry], threads: int) -> Iterator[tuple[Scene, Fitted]]:
        """Yield scenes with their splats. Unusable objects are quarantined."""
        # The slice has the data source only if the source provides splats.
        source = getattr(self.config, "data", None)
        if not isinstance(source, Original):
            yield from FitQueue(self.fit).run(self._scenes(objects, threads))
            return
        entries = {entry.id: entry for entry in objects}
        for scene in self._scenes(objects, threads):
            try:
                splats = source.given_splats(entries[scene.id], self.config.splat.size)
            except BrokenObject as error:
                self._reject(scene.id, str(error))
                continue
            yield scene, self.fit.judge(scene, splats)

    def add(self, scene: Scene, fitted: Fitted) -> None:
        """Add a result."""
        row = self.rows[scene.id] = _row(scene, fitted, self.config.fit)
        self.meter.advance(psnr=fitted.psnr)
        if row["status"] == "ok":
            row["clipped"] = clipping.of_fit(fitted.splats)
            self.splats[scene.id] = fitted.splats
            self._show(scene, fitted.splats)

    def take_over(self, name: str, splats: torch.Tensor, row: dict[str, Any]) -> None:
        """Add a result from another data set's fit."""
        self.splats[name] = splats
        # Earlier versions did not count.
        self.rows[name] = row if "clipped" in row else {**row, "clipped": clipping.of_fit(splats)}
        with contextlib.suppress(BrokenObject):
            self._show(as_scene(self.reader.read(name), self.config.camera.radius), splats)

    def sheet(self) -> NDArray[np.uint8]:
        """The contact sheet: one row of images for each of the first objects."""
        return np.concatenate(self.images) if self.images else np.zeros((8, 8, 3), np.uint8)

    def _scenes(self, objects: Sequence[ObjectEntry], threads: int) -> Iterator[Scene]:
        names = [entry.id for entry in objects]
        for name, scene in read_scenes(self.reader, names, self.config.camera, threads):
            if isinstance(scene, Scene):
                yield scene
            else:
                self._reject(name, scene)

    def _reject(self, name: str, reason: str) -> None:
        self.rows[name] = _quarantined(name, reason)
        self.meter.advance()

    def _show(self, scene: Scene, splats: torch.Tensor) -> None:
        if len(self.images) < SHEET_OBJECTS:
            self.images.append(_strip(self.fit, scene, splats))


def _fitted_before(
    folder: StageFolder, objects: Sequence[ObjectEntry]
) -> dict[str, tuple[torch.Tensor, dict[str, Any]]]:
    """Splats and rows of objects that a fit of another data set with the same recipe contains."""
    reused: dict[str, tuple[torch.Tensor, dict[str, Any]]] = {}
    for other, chunk, ids in chunks_made_before(folder.path, folder.recipe, objects):
        file = chunk_file(other, chunk, "safetensors")
        if set(ids) <= reused.keys() or not file.is_file() or not is_recorded(file.with_suffix(".jsonl")):
            continue
        splats = SplatFile(file)
        rows, complete = splats.rows(), set(splats.ids)
        reused.update((name, (splats.read(name), rows[name])) for name in ids if name in complete)
    if reused:
        log.info("reusing %d of %s from other data sets", len(reused), counted(len(objects), "object"))
    return reused


def read_scenes(
    reader: ShardReader, names: Sequence[str], camera: CameraOptions, threads: int
) -> Iterator[tuple[str, Scene | str]]:
    """Yield (id, scene) of a shard's objects, prefetched by threads, or (id, reason) for an unusable object."""

    def read(name: str) -> tuple[str, Scene | str]:
        try:
            item = reader.read(name)
        except BrokenObject as error:
            return name, str(error)
        if len(item.c2w) != camera.n_views:
            return name, f"{counted(len(item.c2w), 'view')} where the configuration has {camera.n_views}"
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
    """A row of the contact sheet: two inputs and one test view, ground truth first, then renders."""
    views = [INPUT_VIEWS[0], INPUT_VIEWS[3], fit.camera.test_ids[0]]
    output = fit.rasterizer.render(to_gaussians(splats[None]).to(fit.device), scene.cameras(views).to(fit.device))
    rgb, alpha = scene.images(views)
    truth = on_white(rgb, alpha)
    render = output.over(1.0)[0].cpu().clamp(0, 1)
    return to_bytes(torch.cat([*truth, *render], dim=-1))
