"""Interface of stage 2's denoising networks, and their condition."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from z1g.networks.diffusion import TIMESTEPS, NoiseSchedule
from z1g.networks.preprocessing import ImageProcessor
from z1g.networks.process import Objective


@dataclass(frozen=True)
class Condition:
    """Condition of the denoiser: latents [B,...] and global embeddings [B,D] of images."""

    latent: Tensor
    embedding: Tensor

    def where(self, keep: Tensor, other: Condition) -> Condition:
        """Rows of this condition where `keep` [B] is True, otherwise rows of `other`."""
        return Condition(_where(keep, self.latent, other.latent), _where(keep, self.embedding, other.embedding))

    @staticmethod
    def joined(conditions: Sequence[Condition]) -> Condition:
        """The rows of several conditions, one after the other."""
        return Condition(torch.cat([c.latent for c in conditions]), torch.cat([c.embedding for c in conditions]))


def _where(keep: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return torch.where(keep.view(-1, *[1] * (first.ndim - 1)), first, second)


@dataclass(frozen=True)
class Parts:
    """How a code [K,...] is trained in equal parts along its first axis, such as the attributes of splats.

    count: number of parts. alone_share: in this first fraction of the steps, each sample is one part, drawn at random.
    jitter: timesteps of an object's parts differ from the drawn one by up to this. cascade: parts that are generated
    before the others, which then see them; empty: all together.
    """

    count: int
    alone_share: float = 0.0
    jitter: int = 0
    cascade: tuple[int, ...] = ()

    def alone(self, code: Tensor, part: int) -> Tensor:
        """One part [K/count,...] of a code [K,...]."""
        alone: Tensor = code.unflatten(0, (self.count, -1))[part]
        return alone

    def jittered(self, timestep: Tensor, uniform: Tensor, entries: int) -> Tensor:
        """Timesteps [B,entries] of the entries of codes, from those of objects [B] and random numbers [B,count]."""
        offset = (uniform * (2 * self.jitter + 1)).long() - self.jitter
        own = (timestep[:, None] + offset).clamp(0, TIMESTEPS - 1)
        return own.repeat_interleave(entries // self.count, dim=1)

    def first(self, entries: int, device: torch.device) -> Tensor:
        """Which entries [entries] of a code's first axis are of the parts that a cascade generates first."""
        parts = torch.arange(entries, device=device) // (entries // self.count)
        chosen = torch.zeros_like(parts, dtype=torch.bool)
        # Without a tensor from the host, which cannot be captured in a CUDA graph.
        for part in self.cascade:
            chosen = chosen | (parts == part)
        return chosen

    def cascaded(self, timestep: Tensor, uniform: Tensor, entries: int) -> tuple[Tensor, Tensor]:
        """Timesteps [B,entries] of a cascade in training, and which entries [B,entries] are to be predicted.

        timestep: [B] or [B,entries]. By random numbers [B], half of the samples have the first parts at their timesteps
        and noise in place of the others; the other half have the first parts clean, the others at their timesteps.
        """
        own = timestep if timestep.ndim == 2 else timestep[:, None].expand(-1, entries)
        first, later = self.first(entries, timestep.device), (uniform >= 0.5)[:, None]
        given = (TIMESTEPS - 1) * (~later).long()
        return torch.where(first != later, own, given), first != later


class Denoiser(nn.Module):
    """Predicts v of a noised code from the code, the timestep and a condition.

    `unet` runs at every denoising step; `vision` encodes a condition image once.
    """

    unet: Any
    vision: Any

    def __init__(self) -> None:
        super().__init__()
        self.schedule = NoiseSchedule()
        self.whole_bf16 = False
        """Whether weights that are cast to bfloat16 once per step replace autocast."""
        self.attention = "auto"
        """Attention kernels; see the option `unet.attention`."""
        self.processor: ImageProcessor | None = None
        """How images become the inputs of `vision`, if a published pipeline says so."""
        self.objective: Objective = "diffusion"
        """What the weights were trained for: to denoise codes, or to give them in one pass (`z1g.networks.regression`).
        """
        self.distilled_steps: int | None = None
        """Steps in which the weights are to be sampled, by DDIM without guidance; None: in as many as one likes."""
        self.clip_sample = False
        """Whether the scheduler of the weights' pipeline clips predicted codes to ±1; see the sampler `ddpm`."""
        self.new_layers: tuple[str, ...] = ()
        """Names of modules that the initial weights lack, or have for fewer inputs. Training never freezes them."""
        self.parts: Parts | None = None
        """How codes are trained in parts; `forward` then takes `part`, see `Parts`. None: always whole."""
        self.rates: dict[str, float] = {}
        """Factors of the learning rate of parameters, by the beginning of their names."""
        self.code_statistics: tuple[Tensor, Tensor] | None = None
        """Mean and deviation [C,1,1] with which the codes were normalized that the initial weights were trained on;
        None: they were not.
        """

    def rate_factor(self, name: str) -> float:
        """Factor of the learning rate of a parameter, by its name in this module."""
        return next((factor for start, factor in self.rates.items() if name.startswith(start)), 1.0)

    def normalized(self, code: Tensor) -> Tensor:
        """Codes as the initial weights expect them, from codes [B,*code_shape] in the decoder's units."""
        if self.code_statistics is None:
            return code
        mean, deviation = (value.to(code) for value in self.code_statistics)
        return (code - mean) / deviation

    def in_units(self, code: Tensor) -> Tensor:
        """Inverse of `normalized`."""
        if self.code_statistics is None:
            return code
        mean, deviation = (value.to(code) for value in self.code_statistics)
        return code * deviation + mean

    @abstractmethod
    def forward(self, noisy: Tensor, timestep: Tensor, condition: Condition, condition_noise: Tensor) -> Tensor:
        """v prediction [B,*code_shape] of noised codes at integer timesteps [B], with `parts.jitter` [B,code_shape[0]].

        condition_noise: standard normal, shape of the condition's latent, for networks that add noise to it.
        """

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Global embedding [B,D] of condition images [B,3,H,W] in 0..1, resized to the encoder's resolution."""

    @property
    @abstractmethod
    def embedding_width(self) -> int:
        """The width D of `embed`."""

    def condition(self, latent: Tensor, images: Tensor) -> Condition:
        """The condition of images [B,3,H,W] in 0..1 with their latents [B,...]."""
        return Condition(latent, self.embed(images))

    def nothing(self, zero_latent: Tensor, batch: int) -> Condition:
        """The condition of unconditional predictions: latent [1,...] of the zero image and a zero embedding."""
        latent = zero_latent.expand(batch, *[-1] * (zero_latent.ndim - 1))
        return Condition(latent, zero_latent.new_zeros(batch, self.embedding_width))
