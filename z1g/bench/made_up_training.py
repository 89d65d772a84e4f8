"""Objectives of both stages of a configuration on made-up objects, without published weights or files."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from z1g.bench.autodecoder import resolution
from z1g.bench.made_up import OBJECTS, MadeUpScenes, UntrainedLpips
from z1g.core.device import default_device
from z1g.core.errors import UserError
from z1g.core.seeding import seeded
from z1g.data.bank import provide
from z1g.inference.method import ImageToSplats
from z1g.losses import Loss
from z1g.losses.lpips import LpipsLoss
from z1g.networks.weights import Scratch, Zero123Plus
from z1g.networks.weights.published_pipeline import PublishedPipeline
from z1g.objectives.autodecoder import AutodecoderObjective
from z1g.objectives.diffusion import DiffusionData, DiffusionObjective
from z1g.objectives.rendered import RenderedTruth, Rendering
from z1g.representations.codec import Trained
from z1g.training.data import Batch, StepData, ahead
from z1g.training.loop import Trainer, one_precision_each
from z1g.training.objective import Objective
from z1g.training.options import TrainOptions

if TYPE_CHECKING:
    from z1g.config.tree import Experiment
    from z1g.networks.reference_denoiser import ReferenceDenoiser
    from z1g.sampling.options import InferOptions

STEPS = 100_000
"""Steps that a schedule counts with, so that the learning rate hardly changes."""
SPREAD = 0.3
"""Standard deviation of an object's code around a code that all share, which a few steps can learn."""
Make = Callable[["Experiment"], Objective]
"""Makes an objective with equal initial weights for options that differ in how a stage trains."""


class StandIn(Scratch):
    """Random weights of the published sizes, which are trained and frozen like published ones."""

    @property
    def pretrained_encoder(self) -> bool:
        return True

    def denoiser(self) -> ReferenceDenoiser:
        denoiser = super().denoiser()
        denoiser.train_conditioning = False
        denoiser.vision.requires_grad_(False)
        denoiser.prompt.requires_grad_(False)
        with seeded(self.init_seed):
            # Adapters would not learn through a last layer of zeros.
            nn.init.normal_(denoiser.unet.conv_out.weight, std=0.02)
        return denoiser


def with_random_weights(config: Experiment) -> Experiment:
    """The configuration with stand-ins for published weights, also of LPIPS, and with whole codes from the first step.

    Raises UserError for published weights of other sizes than Zero123++'s.
    """
    representation: Any = config.representation
    options = getattr(representation, "denoiser", None)
    if options is not None and hasattr(options, "alone_share"):
        # Its second phase takes more memory.
        whole = options.model_copy(update={"alone_share": 0.0})
        config = config.model_copy(update={"representation": representation.model_copy(update={"denoiser": whole})})
    for stage in ("fit", "autodecoder"):
        options = getattr(config, stage)
        losses = {name: _untrained(loss) for name, loss in options.losses.items()}
        config = config.model_copy(update={stage: options.model_copy(update={"losses": losses})})
    if isinstance(config.model, Zero123Plus):
        return config.model_copy(update={"model": StandIn()})
    if isinstance(config.model, PublishedPipeline):
        raise UserError(f"there are no random weights of the sizes of model {config.model.kind}; use zero123plus")  # type: ignore[attr-defined]
    return config


def _untrained(loss: Loss) -> Loss:
    """LPIPS with random weights in place of one whose trunk is a file."""
    return UntrainedLpips(**loss.model_dump()) if type(loss) is LpipsLoss else loss


def stage_1(config: Experiment) -> Make:
    """Objectives of stage 1."""
    if config.autodecoder.codes.needs_unet:
        raise UserError(
            "made-up objects have no codes of a UNet: choose autodecoder.codes of kind encoder or optimized"
        )
    scenes = MadeUpScenes(config, resolution(config))

    def make(changed: Experiment) -> Objective:
        with seeded(0):
            codec = changed.new_codec()
        book = changed.autodecoder.codes.book(scenes.ids, codec.code_shape)
        mixed = changed.autodecoder.mix_diffusion.interval is not None
        denoiser = changed.new_denoiser() if mixed else None
        return AutodecoderObjective(changed, codec, book, scenes, scenes.ids, denoiser, cache="host")

    return make


def stage_2(config: Experiment) -> Make:
    """Objectives of stage 2, on codes around one that all objects share. Networks are built once and copied."""
    with seeded(0):
        codec, denoiser = config.new_codec().requires_grad_(False), config.new_denoiser()
    side, device = config.unet.condition_size, default_device()
    trains_vision = any(p.requires_grad for p in denoiser.vision.parameters())
    scenes = MadeUpScenes(config, resolution(config))
    n, generator = len(scenes.ids), torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    codec = codec.for_inference(device)
    with torch.no_grad():
        latent = codec.condition_latent(torch.full((1, 3, side, side), 0.5, device=device))
        zero = codec.zero_latent(side, device).cpu()
    data = DiffusionData(
        codes=normal(1, *codec.code_shape) + SPREAD * normal(n, *codec.code_shape),
        latents=normal(n, *latent.shape[1:]),
        zero_latent=zero,
        embeddings=None if trains_vision else normal(n, denoiser.embedding_width),
        images=normal(n, 3, side, side).sigmoid() if trains_vision else None,
    )
    codec = codec.cpu()

    def make(changed: Experiment) -> Objective:
        options, own, rendering = changed.unet, copy.deepcopy(denoiser), None
        with seeded(0):
            options.finetune.prepare(own)
        if options.rendered is not None:
            views, bank = provide("host", scenes, scenes.ids, device)
            truth, one = RenderedTruth(changed, views, options.rendered.views), torch.ones(1)
            decoder = copy.deepcopy(codec).to(device)
            rendering = Rendering(options.rendered, changed, decoder, 0 * one, one, truth, bank)
        return DiffusionObjective(options, own, data, rendering)

    return make


def sampling(config: Experiment, options: InferOptions, device: torch.device) -> ImageToSplats:
    """The method with networks of a configuration, for sampling with `options`."""
    with seeded(0):
        codec, denoiser = config.new_codec(), config.new_denoiser()
    codec = codec.requires_grad_(False).eval().for_inference(device)
    statistics = {
        "mean": torch.zeros(1, device=device),
        "deviation": torch.ones(1, device=device),
        "zero_latent": codec.zero_latent(config.unet.condition_size, device),
    }
    denoiser = denoiser.requires_grad_(False).eval().to(device)
    denoiser.objective = config.unet.objective
    return ImageToSplats(Trained(codec, denoiser, statistics), options)


def making(config: Experiment, stage: str) -> Make:
    """Objectives of a stage of a configuration with random weights, see `with_random_weights`."""
    return {"autodecoder": stage_1, "unet": stage_2}[stage](config)


def changed(config: Experiment, stage: str, train: TrainOptions, **options: Any) -> Experiment:
    """The configuration with other options of a stage. Those that it would refuse, such as adapters, pass."""
    section = getattr(config, stage).model_copy(update={"train": train, **options})
    return config.model_copy(update={stage: section})


@contextmanager
def training(config: Experiment, stage: str, make: Make, steps: int) -> Iterator[tuple[Trainer, Iterator[Batch]]]:
    """A trainer of a stage with its options, and the batches of its first steps."""
    options: TrainOptions = getattr(config, stage).train
    objective: Any = make(config)
    data = StepData(objective.sample, OBJECTS, options.batch_size, options.seed, in_memory=True)
    one_precision_each()
    with tempfile.TemporaryDirectory(prefix="z1g-bench-") as folder:
        trainer = Trainer(objective, data, options.model_copy(update={"steps": STEPS}), Path(folder) / stage / "bench")
        objective.train()
        yield trainer, ahead(iter(data.batches(0, steps, 0, 1, 0)), trainer.accelerator.device.type == "cuda")
