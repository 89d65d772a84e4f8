"""Stage `infer`: sample codes for a chunk of objects and write their splats."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from z1g.codes.inputs import encoder_inputs
from z1g.config.tree import Experiment
from z1g.core.device import default_device, use_threads
from z1g.core.files import atomic_folder, write_jsonl
from z1g.core.progress import Meter
from z1g.data.manifest import Split, evaluation_objects, int_hash
from z1g.data.scenes import SceneStore
from z1g.data.sealed_tensors import read_output
from z1g.gaussians.channels import to_gaussians
from z1g.gaussians.finite import require_finite
from z1g.geometry.camera import CONDITION_VIEW
from z1g.inference.method import ImageToSplats
from z1g.inference.outputs import SampleWriter
from z1g.inference.several import ViewSearch, of_scene
from z1g.plan.folder import StageFolder
from z1g.sampling.inferred import Objects
from z1g.stages.autodecoder import training_scenes

TURNTABLE_SECONDS = 2.4


def run(folder: StageFolder, chunk: int, threads: int) -> None:
    """Sample the chunk's evaluation objects and write `chunk-NNNNN/`.

    The folder has splats, `.ply` files, mosaics, turntables and the seeds of each object.
    """
    use_threads(threads)
    options = folder.config.infer
    method, trained = ImageToSplats.from_stage(folder), folder.upstream_folder("autodecoder")
    scenes, _ = training_scenes(trained)
    names = [name for name, _ in evaluated(folder)[chunk * options.chunk_size : (chunk + 1) * options.chunk_size]]
    present = [name for name in names if name in scenes.ids]
    form = folder.upstream_folder("unet").config.unet.condition_form
    true = read_output(folder.upstream_path("codes") / "codes.safetensors")
    rows: list[dict[str, Any]] = []
    out: dict[str, Tensor] = {}
    config, side = trained.config, scenes[present[0]].rgba.shape[1] if present else 1
    with Meter(f"infer chunk {chunk}", len(present)) as meter, atomic_folder(folder.path / f"chunk-{chunk:05d}") as tmp:
        writer = SampleWriter(
            tmp, config.camera, config.render, side, options.turntable_frames, TURNTABLE_SECONDS, ".webp"
        )
        for first in range(0, len(present), options.batch_size):
            batch = present[first : first + options.batch_size]
            seeds = [int_hash(name) for name in batch]
            objects = Objects(
                torch.stack([scenes[name].condition(*form) for name in batch]),
                seeds,
                torch.stack([true[name] for name in batch]).to(default_device()),
                partial(encoder_inputs, method.codec, scenes, batch),
                partial(_refined, method, config, scenes, batch),
            )
            codes = options.codes.codes(method, objects)
            splats = method.decode(codes)
            rows += [
                {"object": name, "seed": options.seed, "object_seed": seed, "codes": options.codes.kind}
                for name, seed in zip(batch, seeds, strict=True)
            ]
            for name, code, splat in zip(batch, codes.cpu(), splats.cpu(), strict=True):
                out[f"{name}/code"], out[f"{name}/splats"] = code.contiguous(), splat.contiguous()
                gaussians = to_gaussians(splat[None])
                require_finite(gaussians[0], f"{folder.path}: splats of {name}", "train the model of this stage again")
                writer.write(name, gaussians.to(default_device()))
                meter.advance()
        save_file(out, tmp / "splats.safetensors")
        write_jsonl(tmp / "objects.jsonl", rows)


def _refined(
    method: ImageToSplats, config: Experiment, scenes: SceneStore, names: Sequence[str], codes: Tensor, steps: int
) -> Tensor:  # fmt: skip
    """Codes [B,*code_shape] near sampled ones whose renders match the condition images of their objects better."""
    search = ViewSearch(method.codec.decode, config.render, config.camera, method.statistics["deviation"])
    seen = (of_scene(scenes.seen(name, [CONDITION_VIEW])) for name in names)
    return torch.stack([search(code, targets, steps) for code, targets in zip(codes, seen, strict=True)])


def evaluated(folder: StageFolder) -> list[tuple[str, Split]]:
    """Id and split of every object that is sampled and evaluated."""
    split = folder.upstream_folder("autodecoder").config.data.split
    infer = folder if folder.stage == "infer" else folder.upstream_folder("infer")
    return evaluation_objects(folder.manifest(), split, infer.config.infer.train_objects)
