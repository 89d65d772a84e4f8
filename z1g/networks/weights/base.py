"""Networks: the autoencoder, the splatter decoder, and the conditioned diffusion UNet."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from z1g.networks.denoiser import Denoiser


class Model(Slot):
    """Where the networks come from: published weights or random ones of any size."""

    kind: str

    @abstractmethod
    def autoencoder(self) -> AutoencoderKL:
        """The VAE before stage 1. Raises UserError where weights are missing."""

    @abstractmethod
    def denoiser(self) -> Denoiser:
        """UNet, image encoder and prompt before stage 2. Raises UserError where weights are missing."""

    @property
    @abstractmethod
    def pretrained_encoder(self) -> bool:
        """Whether the VAE encoder arrives trained, so that stage 1 may leave it frozen."""

    @property
    @abstractmethod
    def latent_factor(self) -> int:
        """Pixels of the input a latent pixel covers, per side."""
