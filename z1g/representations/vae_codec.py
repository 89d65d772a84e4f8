"""Codecs whose two halves are those of one VAE."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from z1g.networks.autoencoder import ImageEncoder
from z1g.networks.fused.modules import fuse_where_possible, to_contiguous
from z1g.networks.stored import forget_origin
from z1g.representations.codec import Codec


class VaeCodec(Codec):
    """The modules `encoder` and `decoder` have the layers of one VAE."""

    encoder: ImageEncoder

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        # In a tuple it is not registered as a submodule, which would list its parameters twice.
        self._vae = (vae,)

    @property
    def vae(self) -> AutoencoderKL:
        """The autoencoder that contains the layers of both halves."""
        return self._vae[0]

    def decode(self, code: Tensor) -> Tensor:
        splats: Tensor = self.decoder(code)
        return splats

    def last_layers(self) -> list[Tensor]:
        weight = self.vae.decoder.conv_out.weight
        return [weight] if weight.requires_grad else []

    def for_inference(self, device: torch.device) -> Self:
        self.vae.to(device)
        self.to(device)
        fuse_where_possible(self.vae, device)
        return self

    def save(self, folder: Path) -> None:
        """Write the VAE in diffusers' layout."""
        to_contiguous(self.vae)
        self.vae.save_pretrained(folder / "vae")
        forget_origin(folder / "vae")
