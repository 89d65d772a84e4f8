"""What generates codes: the contract of stage 2's networks, and what they are conditioned on."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from z1g.networks.diffusion import NoiseSchedule


@dataclass(frozen=True)
class Condition:
    """What one image tells the denoiser: its latent [B,...] and its global embedding [B,D]."""

    latent: Tensor
    embedding: Tensor

    def where(self, keep: Tensor, other: Condition) -> Condition:
        """Rows of this condition where `keep` [B] is true, else those of `other`."""
        return Condition(_where(keep, self.latent, other.latent), _where(keep, self.embedding, other.embedding))


def _where(keep: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(keep.view(-1, *[1] * (one.ndim - 1)), one, other)


class Denoiser(nn.Module):
    """Predicts v of a noised code from the code, the timestep and a condition.

    `unet` is the network that runs at every step, `vision` the image encoder that a condition passes once.
    """

    unet: Any
    vision: Any

    def __init__(self) -> None:
        super().__init__()
        self.schedule = NoiseSchedule()
        self.whole_bf16 = False
        """Whether autocast gives way to weights cast to bfloat16 once a step."""
        self.attention = "auto"
        """Attention kernels, see `unet.attention`."""

    @abstractmethod
    def forward(self, noisy: Tensor, timestep: Tensor, condition: Condition, condition_noise: Tensor) -> Tensor:
        """v prediction [B,*code_shape] of noised codes at integer timesteps [B].

        condition_noise: standard normal, shaped like the condition's latent, for networks that noise it.
        """

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Global embedding [B,D] of condition images [B,3,H,W] in 0..1, resized to what the encoder expects."""

    @property
    @abstractmethod
    def embedding_width(self) -> int:
        """D of `embed`."""

    def condition(self, latent: Tensor, images: Tensor) -> Condition:
        """The condition of images [B,3,H,W] in 0..1 with their latents [B,...]."""
        return Condition(latent, self.embed(images))

    def nothing(self, zero_latent: Tensor, batch: int) -> Condition:
        """The unconditional condition: latent [1,...] of the zero image, no image embedding."""
        latent = zero_latent.expand(batch, *[-1] * (zero_latent.ndim - 1))
        return Condition(latent, zero_latent.new_zeros(batch, self.embedding_width))
