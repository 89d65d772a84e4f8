"""Stage `unet`: train the UNet on codes and condition images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from z1g.config.sections import Distillation, UNetOptions, Variants
from z1g.core.device import default_device, use_threads
from z1g.core.errors import UserError
from z1g.core.files import atomic_folder, read_jsonl, write_jsonl
from z1g.core.prefetch import prefetched
from z1g.data.bank import StoredViews, provide
from z1g.data.condition_form import ConditionForm
from z1g.data.scenes import SceneStore
from z1g.data.sealed_tensors import read_output
from z1g.data.tensor_shards import remembered, stamp
from z1g.geometry.camera import CONDITION_VIEW, FIXED_VIEWS
from z1g.networks.attention_kernels import require
from z1g.networks.denoiser import Denoiser
from z1g.objectives.diffusion import MAX_OBJECTS, DiffusionData, DiffusionObjective, VariantData
from z1g.objectives.distillation import DistillationObjective
from z1g.objectives.rendered import RenderedTruth, Rendering
from z1g.objectives.sampled import SampledValidation
from z1g.objectives.variants import VariantImages
from z1g.plan.folder import StageFolder
from z1g.representations.codec import Codec, Trained
from z1g.stages.autodecoder import held_out, shares, training_scenes
from z1g.stages.rungs import reach
from z1g.training.data import Shares, StepData
from z1g.training.loop import Trainer

BLOCK = 8
"""Objects whose variants are encoded at once."""


def run(folder: StageFolder, threads: int, until: float | None = None) -> None:
    """Train for the configured number of steps, distill if asked to, then write `pipeline/` and `history.jsonl`.

    until: stop at this fraction of the steps and write `rungs/<until>.json`, see `z1g.stages.rungs.reach`.
    Raises UserError if the UNet is to be distilled and training to stop early.
    """
    use_threads(threads)
    options = folder.config.unet
    require(options.attention)
    if until is not None and options.distill is not None:
        raise UserError(
            "studies that stop training early compare UNets before they are distilled: set unet.distill to null"
        )
    trained = folder.upstream_folder("autodecoder")
    scenes, ids = training_scenes(trained)
    stored = read_output(folder.upstream_path("codes") / "codes.safetensors")
    codes = torch.stack([stored[name] for name in ids])
    codec = trained.config.load_codec(trained.path / "model").for_inference(default_device())
    representation = trained.config.representation
    if representation.of_stage_2:
        representation = representation.with_stage_2(folder.config.representation)
    denoiser = representation.new_denoiser(folder.config.initial_model, trained.config.camera, trained.config.splat)
    if denoiser.distilled_steps is not None and options.train.steps == 0:
        raise UserError(
            f"unet.train.steps is 0, but the model was distilled to {denoiser.distilled_steps} steps: set "
            "model.pretrained to the one that it was made of, or train it"
        )
    known = denoiser.code_statistics or (torch.zeros(1), torch.ones(1))
    mean, deviation = codec.normalization(codes) if options.normalize_codes else known
    options.finetune.prepare(denoiser)
    # Without a step and a rung to measure, one object is enough to build what `pipeline/` is written from.
    reads = until is not None or _takes_steps(options)
    used = ids if reads else ids[:1]
    data = gather(folder, codec, denoiser, scenes, used, (codes[: len(used)] - mean) / deviation)
    if options.variants is not None and _takes_steps(options):
        variants = gather_variants(folder, options.variants, codec, denoiser, scenes, ids)
        variants["codes"] = (variants["codes"] - mean) / deviation
        data = replace(data, variants=VariantData(variants, options.variants.share))
    rendering = None
    if options.rendered is not None:
        cache = options.train.cache if options.train.steps else "none"
        views, bank = provide(cache, scenes, ids, default_device())
        truth = RenderedTruth(trained.config, views, options.rendered.views)
        rendering = Rendering(options.rendered, trained.config, codec, mean, deviation, truth, bank)
    validation: Callable[[], dict[str, float]] | None = None
    if until is not None:
        validation = SampledValidation(trained.config, codec, denoiser, data, scenes, ids, (mean, deviation))
    unseen = others(folder, codec, denoiser, scenes, stored, (mean, deviation)) if reads else None
    del codec
    objective = DiffusionObjective(options, denoiser, data, rendering, unseen)
    train, shared = options.train, shares(trained, ids)
    # Without views on disk, samples only index tensors in memory.
    in_memory = rendering is None or not isinstance(rendering.truth.stored, StoredViews)
    steps = StepData(objective.sample, len(ids), train.batch_size, train.seed, in_memory, shared)
    if until is not None and validation is not None:
        reach(until, folder.path, objective, steps, options.train, validation)
        return
    Trainer(objective, steps, options.train, folder.path).run()
    if options.distill is not None:
        # The optimizer and the averages of the first training need memory.
        del objective, steps
        denoiser = distilled(folder, options.distill, denoiser, data, unseen, shared)
    if not PartialState().is_main_process:
        return
    with atomic_folder(folder.path / "pipeline") as temporary:
        options.finetune.finish(denoiser.cpu(), temporary)
        codec = trained.config.load_codec(trained.path / "model")
        statistics = {"mean": mean, "deviation": deviation, "zero_latent": data.zero_latent}
        config = trained.config
        representation.save(temporary, Trained(codec, denoiser, statistics), config.camera, config.splat)


def _takes_steps(options: UNetOptions) -> bool:
    """Whether the UNet is trained or distilled, and not left as it is."""
    return options.train.steps > 0 or (options.distill is not None and options.distill.train.steps > 0)


def distilled(
    folder: StageFolder, distill: Distillation, teacher: Denoiser, data: DiffusionData, unseen: DiffusionData | None,
    shared: Shares | None,
) -> Denoiser:  # fmt: skip
    """Distill a denoiser in the stage's folder `distill/`, and add its history to that of the stage.

    Returns the distilled denoiser; the teacher is frozen. shared: shares of the objects, see `StepData`.
    """
    options = folder.config.unet
    objective = DistillationObjective(options, distill, teacher, data, unseen)
    # A process has one precision.
    train = distill.train.model_copy(update={"precision": options.train.precision})
    steps = StepData(objective.sample, len(data.codes), train.batch_size, train.seed, in_memory=True, shares=shared)
    place = folder.path / "distill"
    trainer = Trainer(objective, steps, train, place, "distill")
    trainer.run()
    if trainer.accelerator.is_main_process:
        history = folder.path / "history.jsonl"
        rows, later = read_jsonl(history), read_jsonl(place / "history.jsonl")
        write_jsonl(history, [*rows, *_continued(rows, options.train.steps, later)])
    return objective.denoiser


def _continued(rows: list[dict[str, Any]], steps: int, later: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of a history that continues another one, with figures of their own names: `distill_loss` and others."""
    seconds = rows[-1]["seconds"] if rows else 0.0
    for row in later:
        own = {f"distill_{name}": value for name, value in row.items() if name not in ("step", "seconds")}
        yield {"step": steps + row["step"], **own, "seconds": round(seconds + row["seconds"], 3)}


@torch.no_grad()
def others(
    folder: StageFolder, codec: Codec, denoiser: Denoiser, scenes: SceneStore, stored: Mapping[str, Tensor],
    statistics: tuple[Tensor, Tensor],
) -> DiffusionData | None:  # fmt: skip
    """Return codes and conditions of the held-out objects that validation uses, None if there are none."""
    names = [name for name in held_out(folder.upstream_folder("autodecoder"), scenes) if name in stored][:MAX_OBJECTS]
    if not names:
        return None
    form, (mean, deviation) = folder.config.unet.condition_form, statistics
    encoded = Conditions(codec, denoiser)(_condition_images(scenes, names, form))
    codes = (torch.stack([stored[name] for name in names]) - mean) / deviation
    zero = codec.zero_latent(form.size, default_device()).cpu()
    return DiffusionData(codes, encoded["latents"], zero, encoded.get("embeddings"), encoded.get("images"))


@torch.no_grad()
def gather(
    folder: StageFolder, codec: Codec, denoiser: Denoiser, scenes: SceneStore, ids: list[str], codes: Tensor
) -> DiffusionData:
    """Return codes and conditions of the objects. Conditions are cached in the stage's folder `conditions/`."""
    form = folder.config.unet.condition_form

    def make(names: Sequence[str]) -> dict[str, Tensor]:
        return conditions(_condition_images(scenes, names, form))

    conditions = Conditions(codec, denoiser)
    stored = remembered(folder.path / "conditions", _key(folder, conditions.frozen), ids, make)
    zero = codec.zero_latent(form.size, default_device()).cpu()
    return DiffusionData(codes, stored["latents"], zero, stored.get("embeddings"), stored.get("images"))


def _condition_images(scenes: SceneStore, names: Sequence[str], form: ConditionForm) -> Tensor:
    """Condition images [B,3,C,C] of objects."""

    def image(name: str) -> Tensor:
        return scenes.seen(name, [CONDITION_VIEW]).condition(*form)

    return torch.stack(list(prefetched(image, names, torch.get_num_threads())))


@torch.no_grad()
def gather_variants(
    folder: StageFolder, options: Variants, codec: Codec, denoiser: Denoiser, scenes: SceneStore,
    ids: list[str],
) -> dict[str, Tensor]:  # fmt: skip
    """Return codes and conditions [N,K,...] of all objects' variants, cached in the stage's folder `variants/`.

    Raises UserError if an object has no fitted splats.
    """
    trained, device = folder.upstream_folder("autodecoder"), default_device()
    example = scenes.rendered(ids[0])
    poses, side = example.c2w[list(FIXED_VIEWS)], example.rgba.shape[1]
    images = VariantImages(options, trained.config, poses, side, folder.config.unet.condition_form, codec.inputs)
    conditions = Conditions(codec, denoiser)

    def fitted(name: str) -> tuple[str, Tensor]:
        splats = scenes.splats(name)
        if splats is None:
            raise UserError(f"{name} has no fitted splats, which unet.variants needs; set unet.variants to null")
        return name, splats

    def make(names: Sequence[str]) -> dict[str, Tensor]:
        blocks = []
        read = prefetched(fitted, names, torch.get_num_threads())
        while block := list(islice(read, BLOCK)):
            made = [images(name, splats.to(device)) for name, splats in block]
            inputs, seen = (torch.cat(parts) for parts in zip(*made, strict=True))
            encoded = {"codes": codec.encode(inputs).cpu(), **conditions(seen)}
            blocks.append({what: value.unflatten(0, (len(block), -1)) for what, value in encoded.items()})
        return {what: torch.cat([block[what] for block in blocks]) for what in blocks[0]}

    key = {
        **_key(folder, conditions.frozen),
        "splats": folder.upstream["fit"],
        "variants": options.model_dump(mode="json", exclude={"share"}),
    }
    return remembered(folder.path / "variants", key, ids, make)


class Conditions:
    """Computes conditions: latents, with embeddings if the image encoder is frozen, or with images if it is trained."""

    def __init__(self, codec: Codec, denoiser: Denoiser) -> None:
        self.codec, self.denoiser = codec, denoiser.to(default_device())
        self.frozen = not any(p.requires_grad for p in denoiser.vision.parameters())

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return latents and embeddings, or latents and images, of images [B,3,C,C] in 0..1, on the CPU."""
        on_device = images.to(default_device())
        encoded = {"embeddings": self.denoiser.embed(on_device)} if self.frozen else {"images": on_device}
        return {
            name: value.cpu() for name, value in {"latents": self.codec.condition_latent(on_device), **encoded}.items()
        }


def _key(folder: StageFolder, frozen: bool) -> dict[str, Any]:
    """Everything that conditions depend on."""
    trained = folder.upstream_path("autodecoder")
    return {
        "condition": list(folder.config.unet.condition_form),
        "frozen image encoder": frozen,
        "model": folder.config.model.model_dump(mode="json"),
        "stage 1": {file.name: stamp(file) for file in sorted((trained / "model").rglob("*")) if file.is_file()},
        "images": folder.upstream["ingest"],
    }
