"""Inference on photographs with a trained method, outside the DAG."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from z1g.core.device import default_device
from z1g.core.errors import UserError
from z1g.core.files import atomic_file, read_json, write_json
from z1g.core.locks import exclusive_folder
from z1g.core.names import counted
from z1g.core.progress import Check, Meter, no_check
from z1g.data.manifest import NAME_LENGTH, NO_WORD
from z1g.gaussians.channels import to_gaussians
from z1g.gaussians.finite import require_finite
from z1g.inference.method import ImageToSplats
from z1g.inference.models import TrainedModel
from z1g.inference.outputs import SampleWriter
from z1g.inference.photographs import AS_FOUND, Background, Framing, Photograph, condition, read
from z1g.inference.several import View, check_elevation, in_turn
from z1g.jobs.records import digests, provenance
from z1g.render.images import save_png, to_bytes
from z1g.render.video import video_extension
from z1g.sampling.sample import OnStep
from z1g.surface.build import MeshOptions, build, require_packages

log = logging.getLogger("z1g")
FRAMES, FILM_SECONDS = 48, 4.0
LAST = (".ply", ".glb")
"""Endings of files that are moved last, so that none is there without the sheet, by which `require_own` knows it."""


@dataclass(frozen=True)
class PhotographOptions:
    """Outputs of every photograph.

    seed: None derives it from the file's content. size: side of images, pixels. framing: changes of the crop.
    more, elevation, refine: further photographs of the same object, and the search that matches all of them or one, see
    `ImageToSplats.reconstruct`.
    """

    out: Path
    background: Background = "remove"
    seed: int | None = None
    size: int = 320
    mesh: bool = False
    framing: Framing = AS_FOUND
    more: tuple[View, ...] = ()
    elevation: float | None = None
    refine: bool = False


@dataclass
class Failures:
    """Photographs that could not be used, and names of results without the mesh that was asked for, with reasons."""

    reasons: dict[str, str] = field(default_factory=dict)
    meshes: dict[str, str] = field(default_factory=dict)

    def check(self, total: int) -> None:
        """Raise UserError with the list of failures, if there are any."""
        kinds = {"could not be used": self.reasons, "got splats, but no mesh": self.meshes}
        told = [
            "\n  ".join([f"{len(reasons)} of {counted(total, 'photograph')} {kind}:", *reasons.values()])
            for kind, reasons in kinds.items()
            if reasons
        ]
        if told:
            raise UserError("\n".join(told))


def run(files: Sequence[Path], model: TrainedModel, outputs: PhotographOptions, command: Sequence[str]) -> None:
    """Write `<name>.ply`, `.condition.png`, `.sheet.png`, `.turntable.*`, `.json`, optionally `.glb` per photograph.

    The `.json` is written last, with digests of the outputs, and marks them as complete. An earlier result of the same
    name is removed first, so that the files of two runs are never mixed. Raises UserError if another process writes to
    the output folder. A photograph that cannot be used, or a mesh that cannot be made, does not stop the others;
    UserError lists these at the end.
    """
    if outputs.more and len(files) != 1:
        raise UserError(f"--with adds photographs to one object, but there are {len(files)} photographs before it")
    check_elevation(outputs.elevation, "the first photograph")
    outputs = replace(outputs, more=tuple(view.opened(outputs.background) for view in outputs.more))
    if outputs.mesh:
        require_packages()
    require_own(outputs.out, names(files))
    with exclusive_folder(outputs.out) as unfinished:
        _make_all(files, Batch(ImageToSplats.of(model), outputs, command, unfinished))


def require_own(out: Path, results: Sequence[str]) -> None:
    """Raise UserError if results would replace splats or meshes that are no earlier result, complete or not."""
    for name in results:
        if (out / f"{name}.json").exists() or (out / f"{name}.sheet.png").exists():
            continue
        for file in (out / f"{name}{ending}" for ending in LAST):
            if file.exists():
                raise UserError(f"{file} is not from z1g infer and would be replaced; give another folder")


def _make_all(files: Sequence[Path], batch: Batch) -> None:
    failures = batch.failures
    # A search takes longer than a sample, and is for one: so each result is there as soon as it can be.
    size = 1 if batch.outputs.refine else batch.method.options.batch_size
    with Meter("photographs", len(files)) as meter:
        for group in _groups(zip(files, names(files), strict=True), size):
            photographs = []
            for file, name in group:
                try:
                    photographs.append((file, name, read(file, batch.outputs.background)))
                except UserError as error:
                    failures.reasons[str(file)] = str(error)
                    log.warning("%s", error)
                    meter.advance()
            if photographs:
                batch.make(photographs, meter)
    failures.check(len(files))


def names(files: Sequence[Path]) -> list[str]:
    """Names of the results, from the file names; equal names are numbered.

    Names that differ in case only count as equal, since they name one file on the disks of macOS and Windows.
    """
    unique: list[str] = []
    taken: set[str] = set()
    for file in files:
        # Endings are added to names, whose limit is 255 bytes nearly everywhere.
        stem = NO_WORD.sub("_", file.stem)[:NAME_LENGTH] or "photograph"
        name, count = stem, 2
        while name.casefold() in taken:
            name, count = f"{stem}-{count}", count + 1
        unique.append(name)
        taken.add(name.casefold())
    return unique


class Batch:
    """Samples photographs in batches and writes the requested outputs.

    method: from `ImageToSplats.of`. unfinished: a folder for files until all of a result are there. on_step: called
    after each step of sampling, and of the search that refines, with the numbers of steps done and of all. check:
    called while a film or a mesh is made, and before a result replaces an earlier one; an exception in it ends the
    batch.
    """

    def __init__(
        self, method: ImageToSplats, outputs: PhotographOptions, command: Sequence[str], unfinished: Path,
        on_step: OnStep | None = None, check: Check = no_check,
    ) -> None:  # fmt: skip
        if method.model is None:
            raise ValueError("photographs need a method from ImageToSplats.of")
        model = method.model
        self.unfinished, self.failures = unfinished, Failures()
        self.on_step, self.on_search = in_turn(on_step) if outputs.more or outputs.refine else (on_step, None)
        self.check = check
        self.outputs, self.model, self.command = outputs, model, list(command)
        self.method = method
        self.writer = SampleWriter(
            unfinished, model.camera, model.render, outputs.size, FRAMES, FILM_SECONDS, video_extension(), check
        )
        self.provenance = provenance()

    def make(self, photographs: Sequence[tuple[Path, str, Photograph]], meter: Meter) -> None:
        """Sample and write a batch. Photographs that the framing shows nothing of become failures."""
        options, started = self.outputs, time.monotonic()
        shown = [(*one, image) for one in photographs if (image := self._condition(one[0], one[2], meter)) is not None]
        if not shown:
            return
        photographs, images = [one[:3] for one in shown], torch.stack([one[3] for one in shown])
        seeds = [options.seed if options.seed is not None else photograph.seed for _, _, photograph in photographs]
        codes, splats = self.method(images, seeds, on_step=self.on_step)
        if options.more or options.refine:
            splats = torch.cat(
                [self._refined(code, photograph) for code, (_, _, photograph) in zip(codes, photographs, strict=True)]
            )
        seconds = (time.monotonic() - started) / len(photographs)
        for (file, name, photograph), image, seed, splat in zip(photographs, images, seeds, splats, strict=True):
            meter.advance()
            try:
                files = self._write(name, image, to_gaussians(splat[None]))
            except UserError as error:
                self._failed(file, error)
                continue
            record = {
                "photograph": str(file),
                "sha256": photograph.digest,
                "seed": seed,
                "sampler_seed": self.method.options.seed,
                "model": self.model.name,
                "stages": self.model.stages,
                "steps": self.method.options.steps,
                "guidance": self.method.options.guidance,
                "background": options.background,
                "shift": list(options.framing.shift),
                "zoom": options.framing.zoom,
                "elevation": options.elevation,
                "more": [view.record() for view in options.more],
                "refined": options.refine or bool(options.more),
                "seconds": round(seconds, 3),
                "outputs": files,
                "files": digests([self.unfinished / output for output in files.values()], self.unfinished),
                "command": self.command,
                **self.provenance,
            }
            write_json(self.unfinished / f"{name}.json", record)
            self.check()
            publish(self.unfinished, options.out, name, files.values())
            os.replace(self.unfinished / f"{name}.json", options.out / f"{name}.json")

    def _condition(self, file: Path, photograph: Photograph, meter: Meter) -> Tensor | None:
        """What the model sees of a photograph [3,H,W], None if that is nothing."""
        options, (size, resize) = self.outputs, self.model.condition
        try:
            return condition(photograph, self.model.camera, size, options.background, resize, options.framing)
        except UserError as error:
            self._failed(file, error)
            meter.advance()
            return None

    def _failed(self, file: Path, error: UserError) -> None:
        self.failures.reasons[str(file)] = f"{file}: {error}"
        log.warning("%s: %s", file, error)

    def _refined(self, code: Tensor, photograph: Photograph) -> Tensor:
        """Splatter images [1,6,14,S,S] of a sampled code after the search that matches its photographs."""
        options = self.outputs
        wanted = self.method.targets(photograph, options.more, options.elevation, options.background, options.framing)
        return self.method.decode(self.method.refined(code, wanted, self.on_search)[None])

    def _write(self, name: str, image: Tensor, gaussians: Tensor) -> dict[str, str]:
        """Write the files of one object [1,N,14] in the view-1 frame; returns their names by kind."""
        require_finite(gaussians[0], f"the model {self.model.name} is not usable: splats of {name}", "train it again")
        files, world = self.writer.write(name, gaussians)
        files["condition"] = f"{name}.condition.png"
        with atomic_file(self.unfinished / files["condition"]) as temporary:
            save_png(to_bytes(image), temporary)
        if self.outputs.mesh:
            files["mesh"] = f"{name}.glb"
            try:
                mesh = build(world.to(default_device()), self.model.render, MeshOptions(), self.check)
                mesh.save(self.unfinished / files["mesh"])
            except UserError as error:
                self.failures.meshes[name] = f"{name}: no mesh: {error}"
                log.warning("%s", self.failures.meshes[name])
                del files["mesh"]
        return files


def publish(unfinished: Path, out: Path, name: str, files: Iterable[str]) -> None:
    """Move the files of a result from one folder to another, after removing an earlier result of the same name.

    A process that is killed in between leaves files of one run only: first go earlier files that are not made again,
    then the earlier record, then the others. Without a record, a result is not complete.
    """
    record, files = out / f"{name}.json", list(files)
    for file in _recorded(record, name):
        if file not in files:
            (out / file).unlink(missing_ok=True)
    record.unlink(missing_ok=True)
    for file in files:
        (out / file).unlink(missing_ok=True)
    for file in sorted(files, key=lambda file: file.endswith(LAST)):
        os.replace(unfinished / file, out / file)


def _recorded(record: Path, name: str) -> list[str]:
    """Output files of an earlier result; other names in a record are ignored, since it may come from anywhere."""
    try:
        files = [str(file) for file in read_json(record)["outputs"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [file for file in files if file.startswith(f"{name}.") and "/" not in file]


def _groups(items: Any, size: int) -> Iterator[list[tuple[Path, str]]]:
    """Lists of up to `size` items."""
    pairs = list(items)
    for first in range(0, len(pairs), size):
        yield pairs[first : first + size]
