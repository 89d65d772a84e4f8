"""Stage 2 in few steps: trains the UNet to take each of a few parts of the way from noise to a code in one step.

Progressive distillation (Salimans & Ho 2022, algorithm 2) without its halvings: the ways are those of the trained UNet
in many steps, from noise on, with classifier-free guidance, which the distilled UNet learns, too (Meng et al. 2023,
§3.1, for one scale).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from z1g.core.seeding import numpy_generator
from z1g.losses import Comparison, weighted_sum
from z1g.networks.denoiser import Condition, Denoiser
from z1g.networks.trajectory import shortcut, step, times
from z1g.objectives import purposes
from z1g.objectives.diffusion import AT_ONCE, MAX_OBJECTS, DiffusionData, DiffusionSamples
from z1g.training.data import Batch, Draw, Sample, batch_noise
from z1g.training.objective import Objective

if TYPE_CHECKING:
    from z1g.config.sections import Distillation, UNetOptions

MIN_SNR = 1.0
"""The least signal-to-noise ratio by which losses are weighted: truncated weighting (Salimans & Ho 2022, §4)."""


@dataclass(frozen=True)
class DistillationSamples(DiffusionSamples):
    """Conditions of the objects, some of them between those of two objects. Copied to data loading processes."""

    mixed: float = 0.0
    """Share of samples between two objects."""

    def __call__(self, draw: Draw) -> Sample:
        sample = super().__call__(draw)
        generator = numpy_generator(*draw.key, purposes.MIXED)
        if generator.random() >= self.mixed:
            return sample
        other = super().__call__(replace(draw, object_index=int(generator.integers(len(self.data.codes)))))
        share = float(generator.random())
        return {name: torch.lerp(value, other[name], share) for name, value in sample.items()}


class DistillationObjective(Objective):
    """Loss of the codes that the UNet predicts at its few steps, against those that lead where its teacher goes.

    Each object of a batch is a way from new noise, of which the UNet sees the beginnings of all parts: the batch of the
    UNet is `steps` times as large. Codes are not needed, only conditions.
    """

    zero_latent: Tensor
    replayable = True

    def __init__(
        self, options: UNetOptions, distill: Distillation, teacher: Denoiser, data: DiffusionData,
        held_out: DiffusionData | None = None,
    ) -> None:  # fmt: skip
        """teacher: prepared by `options.finetune`; it is frozen, and `denoiser`, a copy of it, is trained.

        held_out: objects for validation only.
        """
        super().__init__()
        self.options, self.distill, self.data, self.held_out = options, distill, data, held_out
        # The trained network may have hooks of data-parallel training, which copies do not have.
        self.denoiser = copy.deepcopy(teacher)
        self.denoiser.distilled_steps = distill.steps
        self.teacher = teacher.requires_grad_(False)
        teacher.zero_grad(set_to_none=True)
        for network in (self.denoiser, self.teacher):
            # As in `DiffusionObjective`.
            network.whole_bf16 = options.bf16 == "weights" and not distill.train.speed.recompute
        self.register_buffer("zero_latent", data.zero_latent, persistent=False)
        self.sample = DistillationSamples(data, mixed=distill.mixed)
        self.shape = tuple(data.codes.shape[1:])

    def networks(self) -> list[nn.Module]:
        """The networks that `train.speed` applies to."""
        return [self.denoiser.unet, self.teacher.unet]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.teacher.eval()
        return self

    def rate_factor(self, name: str) -> float:
        return self.denoiser.rate_factor(name.removeprefix("denoiser."))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        loss, terms = weighted_sum(self.options.losses, self._compared(batch))
        return {"loss": loss, **terms}

    def validate(self) -> dict[str, float]:
        """Losses on conditions of trained and of held-out objects, with equal noise."""
        sets = {"trained_loss": self.data, "held_out_loss": self.held_out}
        return {name: self._mean_loss(data) for name, data in sets.items() if data is not None}

    def _mean_loss(self, data: DiffusionData) -> float:
        """Mean over the first objects, with noise that is a function of their positions."""
        total, n = 0.0, min(len(data.codes), MAX_OBJECTS)
        for rows in torch.arange(n).split(AT_ONCE):
            batch = data.batch(rows, 0, self.zero_latent.device)
            total += weighted_sum(self.options.losses, self._compared(batch))[0].item() * len(rows)
        return total / n

    def _compared(self, batch: Batch) -> Comparison:
        """Predicted x0 [steps·B,*code_shape] and those of the teacher's way, all rows of a step after the other's."""
        device, n = batch["latent"].device, len(batch["latent"])
        begun = batch_noise(batch, self.shape, purposes.NOISE, device)
        # One noise of the condition for a step of the UNet and all that it replaces, so that it knows all that they do.
        latent_noise = [
            batch_noise(batch, tuple(batch["latent"].shape[1:]), purposes.DISTILLED + i, device)
            for i in range(self.distill.steps)
        ]
        places = self._way(batch, begun, latent_noise)
        at = [torch.full((n,), time, device=device) for time in times(self.distill.steps)]
        start, end, noisy, arrived = (
            torch.cat(at[:-1]),
            torch.cat(at[1:]),
            torch.cat(places[:-1]),
            torch.cat(places[1:]),
        )
        schedule = self.denoiser.schedule
        condition = Condition.joined([_condition(self.denoiser, batch)] * self.distill.steps)
        velocity = self.denoiser(noisy, start, condition, torch.cat(latent_noise))
        predicted = schedule.x0_from_v(noisy, velocity.float(), start)
        target = shortcut(schedule, noisy, arrived, start, end)
        # Steps that start from almost nothing but noise decide most, and would hardly count by their signal.
        return Comparison(latents=predicted, latents_true=target, snr=schedule.snr(start).clamp(min=MIN_SNR))

    @torch.no_grad()
    def _way(self, batch: Batch, begun: Tensor, latent_noise: list[Tensor]) -> list[Tensor]:
        """Where the teacher is at each of `times(steps)`, from noise [B,*code_shape] on: steps + 1 tensors."""
        condition, schedule = _condition(self.teacher, batch), self.teacher.schedule
        every, places = self.distill.teacher_steps // self.distill.steps, [begun]
        noisy = begun
        for i, span in enumerate(pairwise(times(self.distill.teacher_steps))):
            start, end = (torch.full((len(noisy),), time, device=noisy.device) for time in span)
            velocity = self._guided(noisy, start, condition, latent_noise[i // every])
            noisy = step(schedule, noisy, velocity, start, end)
            if (i + 1) % every == 0:
                places.append(noisy)
        return places

    def _guided(self, noisy: Tensor, timestep: Tensor, condition: Condition, latent_noise: Tensor) -> Tensor:
        """The teacher's v with guidance, see `z1g.sampling.sample.sample_codes`."""
        if self.distill.guidance == 1:
            velocity: Tensor = self.teacher(noisy, timestep, condition, latent_noise)
            return velocity.float()
        both = Condition.joined([self.teacher.nothing(self.zero_latent, len(noisy)), condition])
        twice = (noisy, timestep, latent_noise)
        noisy, timestep, latent_noise = (torch.cat([tensor, tensor]) for tensor in twice)
        unconditional, conditional = self.teacher(noisy, timestep, both, latent_noise).float().chunk(2)
        return torch.lerp(unconditional, conditional, self.distill.guidance)


def _condition(denoiser: Denoiser, batch: Batch) -> Condition:
    embedding = batch["embedding"] if "embedding" in batch else denoiser.embed(batch["image"])
    return Condition(batch["latent"], embedding)
