"""Stage `unet`: train the UNet on codes and condition pictures."""

from collections.abc import Sequence

import torch
from safetensors.torch import load_file
from torch import Tensor

from z1g.camera import CONDITION_VIEW
from z1g.data.scenes import SceneStore
from z1g.data.tensor_shards import remembered, stamp
from z1g.device import default_device, use_threads
from z1g.files import atomic_folder, read_json
from z1g.networks.autoencoder import PictureEncoder
from z1g.networks.denoiser import Denoiser
from z1g.networks.reference_attention import require
from z1g.networks.stage1 import Stage1, code_shape
from z1g.objectives.diffusion import DiffusionData, DiffusionObjective, normalisation, zero_picture
from z1g.objectives.rendered import RenderedTruth, Rendering
from z1g.pipeline import Zero1ToGPipeline
from z1g.plan import cut
from z1g.stages import StageFolder
from z1g.stages.autodecoder import training_scenes
from z1g.training.data import StepData
from z1g.training.loop import Trainer

STAGE1_READS = ("camera", "splat", "autodecoder")
"""What `Stage1.load` reads of the configuration."""


def run(folder: StageFolder, threads: int) -> None:
    """Train to the step budget, then write `pipeline/` and `history.jsonl`."""
    use_threads(threads)
    options = folder.config.unet
    require(options.attention)
    trained = folder.upstream_folder("autodecoder")
    scenes, ids = training_scenes(trained)
    stored = load_file(folder.upstream_path("codes") / "codes.safetensors")
    codes = torch.stack([stored[name] for name in ids])
    mean, deviation = normalisation(codes) if options.normalise_codes else (torch.zeros(1), torch.ones(1))
    stage1 = Stage1.load(trained.path / "model", trained.config).to(default_device())
    denoiser = folder.config.model.denoiser()
    options.finetune.prepare(denoiser)
    data = gather(folder, stage1.encoder, denoiser, scenes, ids, (codes - mean) / deviation)
    rendering = None
    if options.rendered is not None:
        truth = RenderedTruth(trained.config, scenes, ids, options.rendered.views)
        rendering = Rendering(options.rendered, trained.config, stage1.decoder, mean, deviation, truth)
    del stage1
    objective = DiffusionObjective(options, denoiser, data, rendering)
    steps = StepData(objective.sample, len(ids), options.train.batch_size, options.train.seed)
    trainer = Trainer(objective, steps, options.train, folder.path)
    trainer.run()
    if not trainer.accelerator.is_main_process:
        return
    with atomic_folder(folder.path / "pipeline") as temporary:
        options.finetune.finish(denoiser.cpu(), temporary)
        stage1 = Stage1.load(trained.path / "model", trained.config)
        record = cut(read_json(trained.path / "stage.json")["config"], STAGE1_READS)
        statistics = {"mean": mean, "deviation": deviation, "zero_latent": data.zero_latent}
        shape = code_shape(trained.config, stage1.vae)
        Zero1ToGPipeline.of(stage1, record, denoiser, statistics, shape).save_pretrained(temporary)


@torch.no_grad()
def gather(
    folder: StageFolder, encoder: PictureEncoder, denoiser: Denoiser, scenes: SceneStore, ids: list[str], codes: Tensor
) -> DiffusionData:
    """Conditions beside the codes of the same objects, from the stage's `conditions/` where they were made before.

    A frozen image encoder sees each picture once; a trained one needs the pictures.
    """
    device, size = default_device(), folder.config.unet.condition_size
    frozen = not any(p.requires_grad for p in denoiser.vision.parameters())
    trained = folder.upstream_path("autodecoder")
    denoiser.to(device)

    def make(names: Sequence[str]) -> dict[str, Tensor]:
        pictures = torch.stack([scenes.views(name, [CONDITION_VIEW]).condition(size) for name in names])
        there = pictures.to(device)
        return {
            "latents": encoder.condition_latent(there).cpu(),
            **({"embeddings": denoiser.embed(there).cpu()} if frozen else {"pictures": pictures}),
        }

    key = {
        "condition_size": size,
        "frozen image encoder": frozen,
        "model": folder.config.model.model_dump(mode="json"),
        "stage 1": {file.name: stamp(file) for file in sorted((trained / "model" / "vae").iterdir())},
        "pictures": folder.upstream["ingest"],
    }
    made = remembered(folder.path / "conditions", key, ids, make)
    zero = encoder.condition_latent(zero_picture(size).to(device)).cpu()
    return DiffusionData(codes, zero_latent=zero, **made)
