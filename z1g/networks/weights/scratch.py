"""The published architecture at any size, with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from z1g.core.slots import MAX_SEED, OneOf
from z1g.networks.vision import Transformer, Vision, VisionSize
from z1g.networks.weights.base import Model
from z1g.networks.weights.sizes import AutoencoderSize, UNetSize

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from z1g.networks.reference_denoiser import ReferenceDenoiser


class Scratch(Model):
    """Random weights, for small experiments and as a baseline without pretraining."""

    kind: Literal["scratch"] = "scratch"
    autoencoder_size: AutoencoderSize = AutoencoderSize()
    unet_size: UNetSize = UNetSize()
    vision: Annotated[Vision, OneOf()] = Transformer()
    vision_size: VisionSize = VisionSize()
    prompt_tokens: int = Field(77, ge=1, le=65_536, description="length of the learned prompt")
    init_seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of the random weights")

    @property
    def pretrained_encoder(self) -> bool:
        return False

    @property
    def head_dim(self) -> int:
        return self.unet_size.head_dim

    @property
    def latent_channels(self) -> int:
        return self.autoencoder_size.latent_channels

    @property
    def latent_factor(self) -> int:
        return int(2 ** (len(self.autoencoder_size.channels) - 1))

    def autoencoder(self) -> AutoencoderKL:
        from z1g.networks.weights import random_networks

        return random_networks.autoencoder(self.autoencoder_size, self.init_seed)

    def denoiser(self) -> ReferenceDenoiser:
        from z1g.networks.weights import random_networks

        channels = self.autoencoder_size.latent_channels
        return random_networks.denoiser(
            self.unet_size,
            lambda width: self.vision.network(self.vision_size, width),
            channels,
            self.prompt_tokens,
            self.init_seed,
        )
