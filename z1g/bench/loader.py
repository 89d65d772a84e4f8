"""Benchmark of reading training samples from shards on disk: speed, and memory over time, on synthetic data."""

import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from z1g.core.errors import UserError
from z1g.core.files import read_jsonl, write_jsonl
from z1g.core.progress import Meter
from z1g.core.seeding import numpy_generator
from z1g.data.manifest import Manifest, ObjectEntry
from z1g.data.scenes import SceneStore, chunk_file
from z1g.data.shards import RenderedObject, shard_path, table_path, write_members, write_object
from z1g.data.splat_files import with_checksums
from z1g.data.stored_splats import Stored, stored
from z1g.gaussians.channels import CHANNELS
from z1g.geometry.camera import CONDITION_VIEW, INPUT_VIEWS, CameraOptions
from z1g.training.data import Draw, Sample, StepData

CHUNK = 16
FITS, UNVERIFIED = "fit", "unverified"
"""Folders of the splats, and of links to the same data with tables without checksums."""
ROUNDS = 41
"""Repetitions of the comparison with and without checksums."""
FIXED_VIEWS = (CONDITION_VIEW, *INPUT_VIEWS)
MB = 2**20


@dataclass(frozen=True)
class Sizes:
    """Numbers of objects and of views [size,size,4] per object, splats [6,14,splat_size,splat_size], and the loader.

    compact, stored: as `data.compact` and `fit.stored`.
    """

    objects: int
    views: int
    size: int
    splat_size: int
    rendered: int
    batch: int
    workers: int
    compact: bool = False
    stored: Stored = "float32"


@dataclass(frozen=True)
class FewViews:
    """Reads samples of stage 1: condition, inputs and some free views as bytes, cameras and splats."""

    scenes: SceneStore
    ids: list[str]
    sizes: Sizes

    def __call__(self, draw: Draw) -> Sample:
        """Decode the views of the sample."""
        views = self._view_ids(draw)
        scene = self.scenes.views(self.ids[draw.object_index], views)
        return _tensors(scene.rgba, scene.c2w, scene.splats)

    def _view_ids(self, draw: Draw) -> list[int]:
        free = range(len(FIXED_VIEWS), self.sizes.views)
        chosen = numpy_generator(*draw.key, 0).choice(free, self.sizes.rendered, replace=False)
        return [*FIXED_VIEWS, *chosen.tolist()]


@dataclass(frozen=True)
class AllViews(FewViews):
    """Reads the same samples by decoding whole scenes."""

    def __call__(self, draw: Draw) -> Sample:
        """Decode all views, then select those of the sample."""
        views = self._view_ids(draw)
        scene = self.scenes[self.ids[draw.object_index]]
        return _tensors(scene.rgba[views], scene.c2w[views], scene.splats)


def _tensors(rgba: NDArray[np.uint8], c2w: torch.Tensor, splats: torch.Tensor | None) -> Sample:
    assert splats is not None
    return {"rgba": torch.from_numpy(rgba), "c2w": c2w, "splats": splats}


def measure(sizes: Sizes, soak_minutes: float, parent: Path | None) -> dict[str, Any]:
    """Write synthetic data and read each object once: with a cold page cache, a warm one, and warm with whole scenes.

    Rates are samples per second over an epoch, without the first batch of each process. `samples_s_a_core` uses the CPU
    time of this process, so it is valid on a busy machine too. `checksums_percent` is what checksums add to this time,
    from reads with and without them in turn, in the first epoch of a process; `checksums_again_percent` in those after
    it, where nothing is verified that has not changed. soak_*: unique set size (USS) of all reading processes in MiB,
    after the first epoch and after `soak_minutes`. The data is written to a temporary folder in `parent`.
    Raises UserError if there are too few objects.
    """
    minimum = sizes.batch * (max(sizes.workers, 1) + 1)
    if sizes.objects < minimum:
        raise UserError(f"--objects {sizes.objects}: give {minimum} or more: a batch per worker and one to time")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="z1g-bench-", dir=parent) as name:
        root = Path(name)
        manifest = write(root, sizes)
        files = sorted(file for file in root.rglob("*") if file.is_file())
        began = time.perf_counter()
        scenes = _store(manifest, root)
        opened = time.perf_counter() - began
        _without_checksums(root)
        needed, complete = FewViews(scenes, scenes.ids, sizes), AllViews(scenes, scenes.ids, sizes)
        _drop_from_cache(files)
        figures: dict[str, Any] = {
            "mb_an_object": round(sum(file.stat().st_size for file in files) / sizes.objects / MB, 1),
            "open_ms_a_shard": round(1e3 * opened / manifest.n_chunks, 2),
            "cold_samples_s": _rate(needed, epoch=0),
            "warm_samples_s": _rate(needed, epoch=1),
            "whole_scene_samples_s": _rate(complete, epoch=1),
            "samples_s_a_core": _rates_of_a_core([needed])[0],
            "whole_scene_samples_s_a_core": _rates_of_a_core([complete])[0],
            **_cost_of_checksums(manifest, root, sizes),
            "workers": sizes.workers,
        }
        if soak_minutes:
            figures |= _soak(needed, 60 * soak_minutes, figures["warm_samples_s"])
    return figures


def _store(manifest: Manifest, root: Path) -> SceneStore:
    return SceneStore(manifest, CameraOptions().radius, root, root / FITS)


def write(root: Path, sizes: Sizes) -> Manifest:
    """Write shards, tables and splats of synthetic objects, which all have the same images."""
    names = [f"object{i:05d}" for i in range(sizes.objects)]
    manifest = Manifest(tuple(ObjectEntry(name, name) for name in names), CHUNK)
    members = _members(sizes)
    header = json.loads(members.pop("json"))
    splats = stored(_splats(sizes.splat_size), sizes.stored)
    for chunk in range(manifest.n_chunks):
        rows = []
        ids = [entry.id for entry in manifest.chunk(chunk)]
        with tarfile.open(shard_path(root, chunk), "w") as tar:
            for name in ids:
                files = {"json": json.dumps({**header, "id": name}).encode(), **members}
                written = write_members(tar, name, files.items())
                rows.append({"id": name, "status": "ok", **written.row()})
        write_jsonl(table_path(root, chunk), rows)
        chunk_splats = {name: splats.clone() for name in ids}
        fits = chunk_file(root / FITS, chunk, "safetensors")
        fits.parent.mkdir(exist_ok=True)
        write_jsonl(fits.with_suffix(".jsonl"), with_checksums([{"id": name} for name in ids], chunk_splats))
        save_file(chunk_splats, fits)
    return manifest


def _members(sizes: Sizes) -> dict[str, bytes]:
    """The files of one object by extension."""
    rgba = np.stack([_image(sizes.size, view) for view in range(sizes.views)])
    c2w = np.tile(np.eye(4), (sizes.views, 1, 1))
    distance = 1 + 0.5 * np.hypot(*np.mgrid[-1 : 1 : sizes.size * 1j, -1 : 1 : sizes.size * 1j])
    depth = np.where(rgba[list(INPUT_VIEWS), ..., 3] > 0, distance, 0).astype(np.float32)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        write_object(tar, RenderedObject("x", c2w, 40.0, rgba, depth, {}), sizes.compact)
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as tar:
        return {member.name[2:]: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def _image(size: int, seed: int) -> NDArray[np.uint8]:
    """RGBA image [size,size,4] of a shaded, textured, slightly noisy disc, which compresses like a render."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    inside = (np.hypot(x, y) < 0.75)[..., None]
    shade = 120 + 80 * np.stack([x, y, x * y], -1) + 20 * np.sin(20 * x + (10 + seed) * y)[..., None]
    rgb = np.clip(shade + np.random.default_rng(seed).normal(0, 3, shade.shape), 0, 255)
    return np.concatenate([np.where(inside, rgb, 0), 255.0 * inside], -1).astype(np.uint8)


def _splats(size: int) -> torch.Tensor:
    """Splatter images [6,14,size,size] of random numbers, visible in the disc of the images."""
    splats = torch.rand(6, 14, size, size)
    splats[:, CHANNELS["opacity"]] = torch.from_numpy(_image(size, 0)[..., 3] / 255.0).float()
    return splats


def _drop_from_cache(files: list[Path]) -> None:
    """Drop files from the page cache. The kernel may ignore this."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _epoch(make: FewViews, epoch: int) -> Iterator[int]:
    """Yield the number of samples of each batch of one epoch, loaded as in training."""
    sizes = make.sizes
    data = StepData(make, sizes.objects, sizes.batch, seed=0)
    per_epoch = sizes.objects // sizes.batch
    for batch in data.batches(epoch * per_epoch, (epoch + 1) * per_epoch, 0, 1, sizes.workers):
        yield len(batch["key"])


def _rate(make: FewViews, epoch: int) -> float:
    batches = _epoch(make, epoch)
    # All processes are running after each has returned a batch.
    for _ in range(max(make.sizes.workers, 1)):
        next(batches)
    began, n = time.perf_counter(), 0
    ended = began
    for size in batches:
        n += size
        # Exclude the shutdown of the processes after the last batch.
        ended = time.perf_counter()
    return round(n / (ended - began), 1)


def _rates_of_a_core(makes: Sequence[FewViews]) -> list[float]:
    """Samples per second of CPU time of each, which take turns with every sample.

    Whoever reads an object second finds its bytes in the processor's caches and is up to 20 % faster, so each is first
    for as many objects as it is last.
    """
    n, seconds = min(makes[0].sizes.objects, 16), [0.0] * len(makes)
    for i in range(n):
        for j in range(len(makes))[:: -1 if i % 2 else 1]:
            began = time.process_time()
            # Tensors of safetensors are read when they are used first: by the copy into the batch, or by a checksum.
            for tensor in makes[j](Draw(i, 0, (0, 0, i))).values():
                tensor.clone()
            seconds[j] += time.process_time() - began
    return [round(n / total, 2) for total in seconds]


def _cost_of_checksums(manifest: Manifest, root: Path, sizes: Sizes) -> dict[str, float]:
    """Median over rounds of the share of CPU time that checksums add, in percent, and its quartiles."""
    added: dict[str, list[float]] = {"checksums": [], "checksums_again": []}
    for _ in range(ROUNDS):
        stores = [_store(manifest, root), _store(manifest, root / UNVERIFIED)]
        makes = [FewViews(store, store.ids, sizes) for store in stores]
        for percents in added.values():
            checked, plain = _rates_of_a_core(makes)
            percents.append(100 * (plain / checked - 1))
    return {
        f"{name}_percent{which}": round(float(percent), 2)
        for name, percents in added.items()
        for which, percent in zip(("_low", "", "_high"), np.percentile(percents, [25, 50, 75]), strict=True)
    }


def _without_checksums(root: Path) -> None:
    """Link the same shards to tables of an earlier version, without checksums, in the folder `UNVERIFIED`."""
    for file in sorted(root.rglob("chunk-*")):
        copy = root / UNVERIFIED / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".jsonl":
            rows = [{k: v for k, v in row.items() if not k.startswith("checksum")} for row in read_jsonl(file)]
            write_jsonl(copy, rows)
        else:
            os.link(file, copy)


def _soak(make: FewViews, seconds: float, rate: float) -> dict[str, Any]:
    """Read for about `seconds` with the same processes, and return memory at the beginning and at the end."""
    sizes = make.sizes
    data = StepData(make, sizes.objects, sizes.batch, seed=0)
    batches = max(2, round(seconds * rate / sizes.batch))
    n, first, last, after = 0, 0.0, 0.0, min(sizes.objects, sizes.batch * (batches - 1))
    with Meter("soak", batches) as meter:
        for i, batch in enumerate(data.batches(0, batches, 0, 1, sizes.workers), 1):
            n += len(batch["key"])
            if not first and n >= after:
                first = _owned_mb()
            if i == batches:
                last = _owned_mb()
            meter.advance()
    return {"soak_samples": n, "soak_mb_first": first, "soak_mb_last": last}


def _owned_mb() -> float:
    """Unique set size of this process and its children, MiB."""
    ours = psutil.Process()
    owned: int = sum(process.memory_full_info().uss for process in [ours, *ours.children(recursive=True)])
    return round(owned / MB, 1)
