"""Slot family of the networks: VAE and conditioned diffusion UNet."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import AutoencoderKL

    from z1g.networks.reference_denoiser import ReferenceDenoiser


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
