"""Stage `infer`: sample codes for a chunk of objects and write splats that people can open."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from z1g.core.device import default_device, use_threads
from z1g.core.files import atomic_folder, write_jsonl
from z1g.core.progress import Meter
from z1g.data.manifest import Split, evaluation_objects, int_hash
from z1g.data.scenes import Scene, SceneStore
from z1g.gaussians import ply
from z1g.gaussians.channels import to_gaussians
from z1g.geometry.camera import INPUT_VIEWS, view_frame
from z1g.inference.method import ImageToSplats
from z1g.inference.pipeline import Zero1ToGPipeline
from z1g.plan.folder import StageFolder
from z1g.render.images import save_png, save_turntable, sheet, turntable_cameras
from z1g.sampling.inferred import Objects
from z1g.stages.autodecoder import training_scenes

TURNTABLE_ELEVATION_DEG = 20.0


@dataclass(frozen=True)
class Generator:
    """The trained method of an ablation: image in, splatter images out."""

    method: ImageToSplats
    folder: StageFolder
    trained: StageFolder

    @classmethod
    def load(cls, folder: StageFolder) -> Generator:
        """From an `infer` stage folder and what lies upstream of it."""
        device = default_device()
        trained = folder.upstream_folder("autodecoder")
        pipeline = Zero1ToGPipeline.from_pretrained(folder.upstream_path("unet") / "pipeline", local_files_only=True)
        return cls(pipeline.to(device).method(folder.config.infer), folder, trained)

    def __call__(self, images: Tensor, seeds: list[int]) -> tuple[Tensor, Tensor]:
        """Codes [B,C,h,w] and splatter images [B,6,14,S,S] for condition images [B,3,H,W] in 0..1."""
        return self.method(images, seeds)

    @torch.no_grad()
    def decoded(self, objects: Objects) -> tuple[Tensor, Tensor]:
        """The same for objects of the data set, whose codes come from where `infer.codes` says."""
        codes = self.folder.config.infer.codes.codes(self.method, objects)
        return codes, self.method.decode(codes)


def run(folder: StageFolder, chunk: int, threads: int) -> None:
    """Sample the chunk's evaluation objects; write `chunk-NNNNN/` with splats, `.ply`, sheets, turntables
    and the seeds of each object.
    """
    use_threads(threads)
    options = folder.config.infer
    generator = Generator.load(folder)
    scenes, _ = training_scenes(generator.trained)
    names = [name for name, _ in evaluated(folder)[chunk * options.chunk_size : (chunk + 1) * options.chunk_size]]
    present = [name for name in names if name in scenes.ids]
    size = folder.upstream_folder("unet").config.unet.condition_size
    true = load_file(folder.upstream_path("codes") / "codes.safetensors")
    inputs = generator.trained.config.autodecoder.input_size
    rows: list[dict[str, Any]] = []
    out: dict[str, Tensor] = {}
    with Meter(f"infer chunk {chunk}", len(present)) as meter, atomic_folder(folder.path / f"chunk-{chunk:05d}") as tmp:
        for first in range(0, len(present), options.batch_size):
            batch = present[first : first + options.batch_size]
            seeds = [int_hash(name) for name in batch]
            objects = Objects(
                torch.stack([scenes[name].condition(size) for name in batch]),
                seeds,
                torch.stack([true[name] for name in batch]).to(default_device()),
                partial(_sheets, scenes, batch, inputs),
            )
            codes, splats = generator.decoded(objects)
            rows += [
                {"object": name, "seed": options.seed, "object_seed": seed, "codes": options.codes.kind}
                for name, seed in zip(batch, seeds, strict=True)
            ]
            for name, code, splat in zip(batch, codes.cpu(), splats.cpu(), strict=True):
                out[f"{name}/code"], out[f"{name}/splats"] = code.contiguous(), splat.contiguous()
                show(generator, scenes[name], splat, tmp)
                meter.advance()
        save_file(out, tmp / "splats.safetensors")
        write_jsonl(tmp / "objects.jsonl", rows)


def _sheets(scenes: SceneStore, names: list[str], size: int) -> Tensor:
    return torch.stack([scenes[name].input_sheet(size) for name in names])


def evaluated(folder: StageFolder) -> list[tuple[str, Split]]:
    """Id and split of every object that is sampled and measured."""
    split = folder.upstream_folder("autodecoder").config.data.split
    infer = folder if folder.stage == "infer" else folder.upstream_folder("infer")
    return evaluation_objects(folder.manifest(), split, infer.config.infer.train_objects)


def show(generator: Generator, scene: Scene, splats: Tensor, folder: Path) -> None:
    """Write one object's `.ply`, six-view sheet and turntable."""
    config = generator.trained.config
    rasterizer, device = config.render, default_device()
    gaussians = to_gaussians(splats[None]).to(device)
    poses = config.camera.poses(0)
    to_frame = view_frame(poses, config.camera.radius)
    ply.write(folder / f"{scene.id}.ply", gaussians[0], np.linalg.inv(to_frame).astype(np.float64))
    cameras = scene.cameras(list(INPUT_VIEWS)).to(device)
    save_png(sheet(rasterizer, gaussians, cameras), folder / f"{scene.id}.sheet.png")
    frames = generator.folder.config.infer.turntable_frames
    circle = turntable_cameras(to_frame, cameras, frames, TURNTABLE_ELEVATION_DEG)
    save_turntable(rasterizer, gaussians, circle, folder / f"{scene.id}.turntable.webp")
