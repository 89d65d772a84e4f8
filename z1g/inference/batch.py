"""Photographs in, splats out: the trained method without its DAG."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from z1g.core.device import default_device
from z1g.core.errors import UserError
from z1g.core.files import atomic_file, read_json, write_json
from z1g.core.progress import Meter
from z1g.data.manifest import NO_WORD
from z1g.gaussians.channels import to_gaussians
from z1g.inference.method import ImageToSplats
from z1g.inference.outputs import SampleWriter
from z1g.inference.photographs import Background, Photograph, condition, find, read
from z1g.jobs.records import provenance
from z1g.plan.folder import StageFolder
from z1g.render.images import save_png, to_bytes
from z1g.render.video import video_extension
from z1g.surface.build import MeshOptions, build, require_packages

log = logging.getLogger("z1g")
FRAMES, FILM_SECONDS = 48, 4.0


@dataclass(frozen=True)
class Wanted:
    """What to make of every photograph. `seed` None: one drawn from the file's content. `size`: side of images."""

    out: Path
    background: Background = "remove"
    seed: int | None = None
    size: int = 320
    mesh: bool = False


@dataclass
class Failures:
    """Photographs that could not be used, with reasons."""

    reasons: dict[str, str] = field(default_factory=dict)

    def check(self, total: int) -> None:
        """Raise UserError listing them, where there are any."""
        if self.reasons:
            lines = "\n".join(f"  {reason}" for reason in self.reasons.values())
            raise UserError(f"{len(self.reasons)} of {total} photographs could not be used:\n{lines}")


def infer_folder(run: Path) -> StageFolder:
    """The trained `infer` stage that `results/ablations/<name>` plans, or that `run` itself is. Raises UserError."""
    plan = run / "plan.json"
    if not plan.is_file():
        folder = StageFolder.open(run) if (run / "stage.json").is_file() else None
        if folder is None or folder.stage != "infer":
            raise UserError(f"--run {run}: neither results/ablations/<name> nor results/infer/<id>")
    else:
        folder = StageFolder.open(run.parent.parent / "infer" / read_json(plan)["stages"]["infer"])
    for stage, part in (("autodecoder", "model"), ("unet", "pipeline")):
        if not (folder.upstream_path(stage) / part).is_dir():
            raise UserError(
                f"--run {run} is not trained yet: {folder.upstream_path(stage) / part} is missing; "
                f"`snakemake --profile local ablation_all` makes it"
            )
    return folder


def run(paths: Sequence[Path], run_path: Path, wanted: Wanted, command: Sequence[str]) -> None:
    """Write for each photograph `<name>.ply`, `.condition.png`, `.sheet.png`, `.turntable.*`, `.json`, if asked `.glb`.

    The `.json` comes last: what has one is whole. A photograph that cannot be used does not stop the others; at the end
    UserError lists them.
    """
    files = find(paths)
    folder = infer_folder(run_path)
    if wanted.mesh:
        require_packages()
    failures = Failures()
    options, batch = folder.config.infer, _Batch(folder, wanted, run_path, command)
    with Meter("photographs", len(files)) as meter:
        for group in _groups(zip(files, names(files), strict=True), options.batch_size):
            taken = []
            for file, name in group:
                try:
                    taken.append((file, name, read(file, wanted.background)))
                except UserError as error:
                    failures.reasons[str(file)] = str(error)
                    log.warning("%s", error)
                    meter.advance()
            if taken:
                batch.make(taken, meter)
    failures.check(len(files))


def names(files: Sequence[Path]) -> list[str]:
    """Names for the results, from the files' own; equal ones are counted."""
    given: list[str] = []
    for file in files:
        stem = NO_WORD.sub("_", file.stem) or "photograph"
        name, count = stem, 2
        while name in given:
            name, count = f"{stem}-{count}", count + 1
        given.append(name)
    return given


class _Batch:
    """Samples photographs together and writes what was asked for."""

    def __init__(self, folder: StageFolder, wanted: Wanted, run_path: Path, command: Sequence[str]) -> None:
        self.wanted, self.run_path, self.command = wanted, run_path, list(command)
        self.method = ImageToSplats.from_stage(folder)
        self.config = folder.upstream_folder("autodecoder").config
        self.writer = SampleWriter(
            wanted.out, self.config.camera, self.config.render, wanted.size, FRAMES, FILM_SECONDS, video_extension()
        )
        self.condition_size = folder.upstream_folder("unet").config.unet.condition_size
        self.stages = {**folder.upstream, "infer": folder.id}
        self.provenance = provenance()

    def make(self, taken: Sequence[tuple[Path, str, Photograph]], meter: Meter) -> None:
        """Sample and write a batch."""
        wanted, camera = self.wanted, self.config.camera
        started = time.monotonic()
        images = torch.stack([condition(p, camera, self.condition_size, wanted.background) for _, _, p in taken])
        seeds = [wanted.seed if wanted.seed is not None else photograph.seed for _, _, photograph in taken]
        _, splats = self.method(images, seeds)
        seconds = (time.monotonic() - started) / len(taken)
        for (file, name, photograph), image, seed, splat in zip(taken, images, seeds, splats, strict=True):
            outputs = self._write(name, image, to_gaussians(splat[None]))
            record = {
                "photograph": str(file),
                "sha256": photograph.digest,
                "seed": seed,
                "sampler_seed": self.method.options.seed,
                "run": str(self.run_path),
                "stages": self.stages,
                "background": wanted.background,
                "seconds": round(seconds, 3),
                "outputs": outputs,
                "command": self.command,
                **self.provenance,
            }
            write_json(wanted.out / f"{name}.json", record)
            meter.advance()

    def _write(self, name: str, image: Tensor, gaussians: Tensor) -> dict[str, str]:
        """Files of one object [1,N,14] in the view-1 frame; returns their names by kind."""
        made, world = self.writer.write(name, gaussians)
        made["condition"] = f"{name}.condition.png"
        with atomic_file(self.wanted.out / made["condition"]) as temporary:
            save_png(to_bytes(image), temporary)
        if self.wanted.mesh:
            made["mesh"] = f"{name}.glb"
            try:
                mesh = build(world.to(default_device()), self.config.render, MeshOptions())
                mesh.save(self.wanted.out / made["mesh"])
            except UserError as error:
                log.warning("%s: no mesh: %s", name, error)
                del made["mesh"]
        return made


def _groups(items: Any, size: int) -> Iterator[list[tuple[Path, str]]]:
    """Lists of up to `size` items."""
    found = list(items)
    for first in range(0, len(found), size):
        yield found[first : first + size]
