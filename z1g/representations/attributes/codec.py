"""Encoder and decoder of attribute images: the stock VAE of color images."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL
from torch import Tensor, nn

from z1g.core.errors import UserError
from z1g.geometry.camera import N_INPUTS
from z1g.geometry.mosaic import tile, untile
from z1g.networks.autoencoder import ImageDecoder, ImageEncoder, latent_shape
from z1g.representations.attributes.mappings import Mappings
from z1g.representations.vae_codec import VaeCodec

Encoding = Literal["per_view", "sheet"]
"""What the VAE sees at once: one view of an attribute, or all six tiled 3x2."""


class AttributeCodec(VaeCodec):
    """Codes [A·V,C,h,w] are the latents of A attributes of V views, in the order of the attributes, then of the views.

    One encoder and one decoder serve all attributes. The condition's latent [C,h,w] is of an image of the same size.
    """

    uses_splats = True
    decoder: ImageDecoder

    def __init__(self, vae: AutoencoderKL, mappings: Mappings, encoding: Encoding, size: int, l1: float) -> None:
        """size: side of splatter images. l1: weight of the errors of attribute images."""
        super().__init__(vae)
        self.encoder, self.decoder = ImageEncoder(vae), ImageDecoder(vae)
        self.mappings, self.encoding, self.size, self.l1 = mappings, encoding, size, l1
        self.code_shape = (len(mappings.names) * N_INPUTS, *latent_shape(vae, size))

    def inputs(self, rgb: Tensor, alpha: Tensor, splats: Tensor | None) -> Tensor:
        """Attribute images [B,A,V,3,S,S] in -1..1 of the fitted splats. Raises UserError if there are none."""
        if splats is None:
            raise UserError("representation 'attributes' needs fitted splats of all objects; use 'mosaic'")
        return self.mappings.images(splats.float())

    def posterior(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, deviation = self.encoder.posterior(self._seen(inputs))
        return self._apart(mean, len(inputs)), self._apart(deviation, len(inputs))

    def code(self, mean: Tensor, deviation: Tensor, noise: Tensor | None) -> Tensor:
        latent = mean if noise is None else mean + deviation * noise
        return latent * self.encoder.scaling_factor

    def images(self, code: Tensor) -> Tensor:
        """Attribute images [B,A,V,3,S,S] of codes, in about -1..1."""
        latents = (code / self.encoder.scaling_factor).unflatten(1, (-1, N_INPUTS))
        decoded = self.decoder(self._seen(latents)).float()
        images: Tensor = self._apart(decoded, len(code)).unflatten(1, (-1, N_INPUTS))
        return images

    def decode(self, code: Tensor) -> Tensor:
        return self.mappings.splats(self.images(code))

    def decode_compared(self, code: Tensor, splats_true: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Terms `l1_<attribute>`: mean absolute errors of attribute images before clipping, whose sum is weighted.

        Each is a mean over one attribute, divided by the number of attributes.
        """
        images = self.images(code)
        splats = self.mappings.splats(images)
        if splats_true is None or self.l1 == 0:
            return splats, {}
        error = (images - self.mappings.images(splats_true.float())).abs().mean(dim=(0, 2, 3, 4, 5))
        weights = self.l1 / len(error)
        return splats, {f"l1_{name}": weights * error[i] for i, name in enumerate(self.mappings.names)}

    def condition_latent(self, images: Tensor) -> Tensor:
        """Latents [B,C,h,w] of images resized to the splats' size, in the units of codes."""
        if images.shape[-1] != self.size:
            images = functional.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        return self.encoder.posterior(2 * images - 1)[0] * self.encoder.scaling_factor

    def zero_latent(self, size: int, device: torch.device) -> Tensor:
        """Zeros, which no image has as its latent."""
        return torch.zeros(1, *self.code_shape[1:], device=device)

    def normalization(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [A·V,C,1,1] of codes [N,A·V,C,h,w], of each attribute and channel."""
        apart = codes.unflatten(1, (-1, N_INPUTS))
        axes = (0, 2, 4, 5)
        mean, deviation = apart.mean(dim=axes, keepdim=True)[0], apart.std(dim=axes, keepdim=True)[0].clamp(min=1e-6)
        mean, deviation = (value.repeat_interleave(N_INPUTS, dim=1).flatten(0, 1) for value in (mean, deviation))
        return mean, deviation

    def networks(self) -> list[nn.Module]:
        return [self.decoder, self.encoder.encoder]

    def use_bf16_weights(self, whole: bool) -> None:
        self.encoder.whole_bf16 = self.decoder.whole_bf16 = whole

    def _seen(self, views: Tensor) -> Tensor:
        """Images or latents [N,C,h,w] that a network sees, of those of attributes and views [B,A,V,C,h,w]."""
        return views.flatten(0, 2) if self.encoding == "per_view" else tile(views.flatten(0, 1))

    def _apart(self, seen: Tensor, batch: int) -> Tensor:
        """Inverse of `_seen`, with attributes and views in one axis: [B,A·V,C,h,w]."""
        views = seen if self.encoding == "per_view" else untile(seen).flatten(0, 1)
        apart: Tensor = views.unflatten(0, (batch, -1))
        return apart
