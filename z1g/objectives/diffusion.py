"""Stage 2: trains the UNet to predict codes from noised codes and a condition image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from z1g.core.seeding import numpy_generator
from z1g.losses import Comparison, weighted_sum
from z1g.networks.denoiser import Condition, Denoiser, Parts
from z1g.networks.diffusion import TIMESTEPS
from z1g.networks.finetune import Full
from z1g.networks.regression import regress
from z1g.objectives import purposes
from z1g.objectives.rendered import RenderedTruth, Rendering
from z1g.training.data import Batch, Draw, Sample, batch_noise, batch_uniform
from z1g.training.objective import Objective

if TYPE_CHECKING:
    from z1g.config.sections import UNetOptions


@dataclass(frozen=True)
class DiffusionData:
    """All training objects in memory: codes [N,*code_shape] (normalized), condition latents [N,...].

    zero_latent: [1,...], the latent of the zero image, which represents no condition.
    embeddings: [N,D] of the condition images, if the image encoder is frozen.
    images: [N,3,H,W] in 0..1, if it is trained.
    """

    codes: Tensor
    latents: Tensor
    zero_latent: Tensor
    embeddings: Tensor | None = None
    images: Tensor | None = None
    variants: VariantData | None = None

    def batch(self, rows: Tensor, draw: int, device: torch.device) -> Batch:
        """The objects at positions `rows` [B] themselves, without variants, keyed by (0, draw, position)."""
        tensors = ((key, getattr(self, name)) for name, key in SAMPLED.items())
        batch = {key: values[rows.to(values.device)].to(device) for key, values in tensors if values is not None}
        keys = torch.stack([torch.zeros_like(rows), torch.full_like(rows, draw), rows], dim=1)
        return {**batch, "key": keys.to(device)}


@dataclass(frozen=True)
class VariantData:
    """K variants of each object: `codes`, `latents` and others [N,K,...], and their fraction of the samples."""

    tensors: dict[str, Tensor]
    share: float


MAX_OBJECTS, AT_ONCE, DRAWS = 64, 16, 2
"""Of validation: objects of each set, objects of a forward pass, and draws of noise for each object."""
SAMPLED = {"codes": "code", "latents": "latent", "embeddings": "embedding", "images": "image"}
"""Names in a sample by names in `DiffusionData`."""


@dataclass(frozen=True)
class DiffusionSamples:
    """Creates the samples of stage 2. Copied to data loading processes, so it contains no networks."""

    data: DiffusionData
    truth: RenderedTruth | None = None
    parts: Parts | None = None
    alone_below: int = 0
    """First step in which codes are whole."""

    def __call__(self, draw: Draw) -> Sample:
        """Code and condition of one object: its latent, and its embedding or image.

        In steps that train parts of codes alone, `code` is one part, and `part` its index: a function of the step, so
        that training resumes in the right phase.
        """
        i, data = draw.object_index, self.data
        sample = self._variant(draw)
        if sample is None:
            tensors = ((key, getattr(data, name)) for name, key in SAMPLED.items())
            sample = {key: values[i] for key, values in tensors if values is not None}
        if self.parts is not None and draw.key[1] < self.alone_below:
            part = int(numpy_generator(*draw.key, purposes.PART).integers(self.parts.count))
            sample |= {"code": self.parts.alone(sample["code"], part), "part": torch.tensor(part)}
        return sample if self.truth is None else {**sample, **self.truth(draw)}

    def _variant(self, draw: Draw) -> Sample | None:
        """One of the object's variants, or None if this sample is the object itself."""
        variants = self.data.variants
        if variants is None:
            return None
        generator = numpy_generator(*draw.key, purposes.VARIANT)
        if generator.random() >= variants.share:
            return None
        k = int(generator.integers(variants.tensors["codes"].shape[1]))
        return {SAMPLED[name]: values[draw.object_index, k] for name, values in variants.tensors.items()}


Prediction = tuple[Tensor, Tensor, Tensor]
"""Predicted codes [B,*code_shape] (normalized); timesteps and signal-to-noise ratios of their inputs, of shape [B], or
[B,K] of the entries of codes [B,K,...].
"""


class DiffusionObjective(Objective):
    """x0 loss of a v-predicting UNet, with conditions dropped at random for classifier-free guidance.

    With `options.objective` regression, the UNet predicts the code in one pass, always with its condition. Optionally
    with losses on renders of the predicted code, through the frozen decoder.
    """

    zero_latent: Tensor

    def __init__(
        self, options: UNetOptions, denoiser: Denoiser, data: DiffusionData, rendering: Rendering | None = None,
        held_out: DiffusionData | None = None,
    ) -> None:  # fmt: skip
        """denoiser: prepared by `options.finetune`. rendering: the rendering losses of `options.rendered`, if any.

        held_out: objects for validation only.
        """
        super().__init__()
        self.held_out = held_out
        self.options, self.denoiser, self.data, self.rendering = options, denoiser, data, rendering
        # Recomputed blocks would use the stored weights instead of the cast ones.
        denoiser.whole_bf16 = options.bf16 == "weights" and not options.train.speed.recompute
        denoiser.attention, denoiser.objective = options.attention, options.objective
        denoiser.distilled_steps = None
        self.register_buffer("zero_latent", data.zero_latent, persistent=False)
        self.replayable = rendering is None
        self.adaptable = isinstance(options.finetune, Full)
        alone_below = 0 if denoiser.parts is None else round(denoiser.parts.alone_share * options.train.steps)
        truth = None if rendering is None else rendering.truth
        self.sample = DiffusionSamples(data, truth, denoiser.parts, alone_below)

    def networks(self) -> list[nn.Module]:
        """The networks that `train.speed` applies to."""
        return [self.denoiser.unet]

    def idle(self) -> list[nn.Module]:
        """The image encoder, if it is frozen and embeddings are at hand."""
        vision = self.denoiser.vision
        trained = any(parameter.requires_grad for parameter in vision.parameters())
        return [] if trained or self.data.embeddings is None else [vision]

    def prepare(self, batch: Batch) -> Batch:
        return batch if self.rendering is None else self.rendering.prepare(batch)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        predicted, timestep, snr = self._predicted(batch)
        loss, terms = 0 * predicted.sum(), dict[str, Tensor]()
        if self._compares_codes:
            pair = Comparison(latents=predicted, latents_true=batch["code"], snr=snr)
            loss, terms = weighted_sum(self.options.losses, pair)
        if self.rendering is not None:
            noisiest = timestep if timestep.ndim == 1 else timestep.amax(dim=1)
            rendering_loss, rendering_terms = self.rendering.losses(predicted, noisiest, batch)
            loss, terms = loss + rendering_loss, {**terms, **rendering_terms}
        return {"loss": loss, **terms}

    def validate(self) -> dict[str, float]:
        """Losses on codes of trained and of held-out objects, always conditioned, with equal noise and timesteps.

        Held-out losses that rise while trained ones fall are those of a UNet that learns its objects by heart. Empty if
        no loss compares codes.
        """
        sets = {"trained_loss": self.data, "held_out_loss": self.held_out}
        return {name: self._mean_loss(data) for name, data in sets.items() if data is not None and self._compares_codes}

    @property
    def _compares_codes(self) -> bool:
        return any(term.weight > 0 for term in self.options.losses.values())

    def _mean_loss(self, data: DiffusionData) -> float:
        """Mean over the first objects and over `DRAWS` draws of timestep and noise, functions of the position."""
        total, n = 0.0, min(len(data.codes), MAX_OBJECTS)
        for first in range(0, n, AT_ONCE):
            rows = torch.arange(first, min(first + AT_ONCE, n))
            for draw in range(DRAWS):
                batch = data.batch(rows, draw, self.zero_latent.device)
                predicted, _, snr = self._predicted(batch)
                pair = Comparison(latents=predicted.float(), latents_true=batch["code"], snr=snr)
                total += weighted_sum(self.options.losses, pair)[0].item() * len(rows)
        return total / (n * DRAWS)

    def _predicted(self, batch: Batch) -> Prediction:
        return (self._regressed if self.options.objective == "regression" else self._denoised)(batch)

    def _regressed(self, batch: Batch) -> Prediction:
        """Codes predicted in one pass from the condition only, whose input has no signal."""
        condition = self._condition(batch)
        shape = tuple(batch["code"].shape[1:])
        predicted = regress(partial(self.denoiser, **_part(batch)), self.denoiser.schedule, condition, shape)
        timestep = torch.full((len(predicted),), TIMESTEPS - 1, device=predicted.device)
        return predicted, timestep, torch.zeros_like(timestep, dtype=torch.float32)

    def _denoised(self, batch: Batch) -> Prediction:
        """Codes predicted from noised codes, some of them without condition."""
        code = batch["code"]
        timestep, active = self._timesteps(batch), None
        parts = self.denoiser.parts
        if parts is not None and parts.cascade and "part" not in batch:
            uniform = batch_uniform(batch, purposes.CASCADE, code.device)
            timestep, active = parts.cascaded(timestep, uniform, code.shape[1])
        noise = batch_noise(batch, tuple(code.shape[1:]), purposes.NOISE, code.device)
        latent_noise = batch_noise(batch, tuple(batch["latent"].shape[1:]), purposes.CONDITION_NOISE, code.device)
        dropout = self.options.condition_dropout if self.training else 0.0
        keep = batch_uniform(batch, purposes.CONDITION_DROPOUT, code.device) >= dropout
        schedule = self.denoiser.schedule
        noisy = schedule.add_noise(code, noise, timestep)
        condition = self._condition(batch).where(keep, self.denoiser.nothing(self.zero_latent, len(keep)))
        velocity = self.denoiser(noisy, timestep, condition, latent_noise, **_part(batch))
        predicted = schedule.x0_from_v(noisy, velocity.float(), timestep)
        if active is not None:
            predicted = torch.where(active.view(*active.shape, *[1] * (code.ndim - 2)), predicted, code)
        return predicted, timestep, schedule.snr(timestep)

    def rate_factor(self, name: str) -> float:
        return self.denoiser.rate_factor(name.removeprefix("denoiser."))

    def _timesteps(self, batch: Batch) -> Tensor:
        """Timesteps [B], or [B,K] of the entries of codes [B,K,...] that `Denoiser.parts` jitters."""
        device, parts = batch["code"].device, self.denoiser.parts
        timestep = self.options.timesteps.draw(batch_uniform(batch, purposes.TIMESTEP, device), TIMESTEPS)
        if parts is None or not parts.jitter or "part" in batch:
            return timestep
        uniform = [batch_uniform(batch, purposes.JITTER + i, device) for i in range(parts.count)]
        return parts.jittered(timestep, torch.stack(uniform, dim=1), batch["code"].shape[1])

    def _condition(self, batch: Batch) -> Condition:
        embedding = batch["embedding"] if "embedding" in batch else self.denoiser.embed(batch["image"])
        return Condition(batch["latent"], embedding)


def _part(batch: Batch) -> dict[str, Tensor]:
    """The argument of the denoiser that says which part of a code the batch has, if it is not whole."""
    return {"part": batch["part"]} if "part" in batch else {}
