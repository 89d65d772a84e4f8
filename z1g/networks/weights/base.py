"""Slot family of the networks: VAE and conditioned diffusion UNet."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from z1g.core.slots import Slot
from z1g.networks.process import Betas

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch import nn

    from z1g.networks.preprocessing import ImageProcessor
    from z1g.networks.reference_denoiser import ReferenceDenoiser


@dataclass(frozen=True)
class DiffusionNetworks:
    """A UNet of diffusers and an image encoder.

    train_vision: whether the image encoder is trained, too. processor: of its images, see `UNetDenoiser`.
    """

    unet: UNet2DConditionModel
    vision: nn.Module
    train_vision: bool
    processor: ImageProcessor | None


@dataclass(frozen=True)
class WeightsProcess:
    """What the UNet of a model predicts, and the noise that it was trained with."""

    prediction: Literal["v", "epsilon"] = "v"
    betas: Betas = "linear"


class Model(Slot):
    """Source of the networks: published weights, those of a trained model, or random weights of any size."""

    kind: str

    @property
    def available(self) -> bool:
        """Whether the sizes below are known: those of a trained model are in its files, which may be elsewhere."""
        return True

    @property
    def method(self) -> Path | None:
        """Folder of the trained method whose networks these are; None if they are of no trained method.

        A representation starts from its own layers in this folder, too.
        """
        return None

    @abstractmethod
    def autoencoder(self) -> AutoencoderKL:
        """The VAE before stage 1. Raises UserError if weights are missing."""

    @abstractmethod
    def denoiser(self) -> ReferenceDenoiser:
        """UNet, image encoder and prompt before stage 2. Raises UserError if weights are missing."""

    def diffusion(self) -> DiffusionNetworks:
        """UNet and image encoder before stage 2, for denoisers of another form. Raises UserError like `denoiser`."""
        denoiser = self.denoiser()
        return DiffusionNetworks(denoiser.unet, denoiser.vision, denoiser.train_conditioning, denoiser.processor)

    def vae_processor(self) -> ImageProcessor | None:
        """How condition images become the VAE's inputs; None: 2x - 1. Raises UserError if its file is missing."""
        return None

    @property
    def process(self) -> WeightsProcess:
        """The process that the weights were trained with; random ones have Zero123++'s."""
        return WeightsProcess()

    @property
    def has_prompt(self) -> bool:
        """Whether `denoiser` has what Zero123++ adds to a UNet and an image encoder, which `diffusion` gives."""
        return True

    @property
    def trains_vision(self) -> bool:
        """Whether stage 2 also trains the image encoder of a trained model."""
        return False

    @property
    def head_dim(self) -> int | None:
        """Channels of the narrowest head of the UNet's attention, as far as options say so."""
        return None

    @property
    @abstractmethod
    def pretrained_encoder(self) -> bool:
        """Whether the VAE encoder is pretrained, so that stage 1 can freeze it."""

    @property
    @abstractmethod
    def latent_channels(self) -> int:
        """Number of channels of a latent."""

    @property
    @abstractmethod
    def latent_factor(self) -> int:
        """Downsampling factor from an image to its latent, per side."""
