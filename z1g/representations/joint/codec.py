"""Encoder and decoder of splatter images, one latent a view."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL
from torch import Tensor, nn

from z1g.core.errors import UserError
from z1g.gaussians.channels import CHANNELS, N_CHANNELS, SplatOptions, activate_rgb, join, split
from z1g.geometry.camera import N_INPUTS, CameraOptions
from z1g.geometry.mosaic import untile
from z1g.networks.autoencoder import ImageDecoder, ImageEncoder, latent_shape
from z1g.networks.stored import forget_origin
from z1g.representations.splat_features import SMALLEST, SplatRays, splat_features, splat_rays
from z1g.representations.vae_codec import VaeCodec

STOCK = "condition_vae"
"""Folder of the VAE that encodes conditions, if that is another one than the splats'."""
SHARPEST, WIDEST = math.exp(-10), math.exp(-2)
"""Bounds of the scales of Gaussians, normalized units; those of the original."""


class SplatDecoder(nn.Module):
    """Decoder of a VAE for 14 channels, with activations to splats, which are the inverse of `splat_features`."""

    anchor: Tensor

    def __init__(self, vae: AutoencoderKL, anchor: Tensor, pixel: float) -> None:
        """anchor: [6,3,S,S], the point of each pixel's ray at the camera distance. pixel: width of a pixel there."""
        super().__init__()
        self.vae, self.pixel = ImageDecoder(vae), pixel
        self.register_buffer("anchor", anchor, persistent=False)

    def forward(self, latent: Tensor) -> Tensor:
        """Activated splatter images [B,6,14,S,S] in float32 from latents [B,6,C,h,w] in the encoder's units."""
        return self.activate(self.raw(latent))

    def raw(self, latent: Tensor) -> Tensor:
        """The VAE's images [B,6,14,S,S], in about -1..1 like `splat_features`."""
        images: Tensor = self.vae(latent.flatten(0, 1)).unflatten(0, latent.shape[:2])
        return images

    def activate(self, raw: Tensor) -> Tensor:
        """Activated splatter images in float32 from raw ones."""
        parts = split(raw.float(), dim=2)
        scale = self.pixel * (parts["scale"] * -math.log(SMALLEST)).exp()
        return join(
            {
                "position": (parts["position"] + self.anchor).clamp(-1, 1),
                "opacity": torch.sigmoid(parts["opacity"]),
                "scale": scale.clamp(SHARPEST, WIDEST),
                "rotation": functional.normalize(parts["rotation"], dim=2),
                "rgb": activate_rgb(parts["rgb"]),
            },
            dim=2,
        )


class JointCodec(VaeCodec):
    """Codes are the latents of a VAE for splatter images, one a view, times its scaling factor.

    Conditions are encoded by a `stock` VAE of color images, which is never trained, or else by that of the splats.
    """

    uses_splats = True
    encoder: ImageEncoder
    decoder: SplatDecoder

    def __init__(
        self, vae: AutoencoderKL, camera: CameraOptions, splats: SplatOptions, stock: AutoencoderKL | None = None
    ) -> None:
        """vae: see `joint_vae`. Raises UserError if it is another one. stock: see above."""
        super().__init__(vae)
        given = vae.config["in_channels"]
        if (given, vae.config["out_channels"]) != (N_CHANNELS, N_CHANNELS):
            raise UserError(
                f"representation 'joint' needs a VAE for {N_CHANNELS} channels, this one has {given}: was the model "
                "trained with another representation?"
            )
        rays = splat_rays(camera, splats.size)
        anchor = untile(rays.anchor[None])[0]
        self.encoder, self.decoder = ImageEncoder(vae), SplatDecoder(vae, anchor, rays.pixel)
        self.stock = None if stock is None else stock.requires_grad_(False).eval()
        self._rays = (rays,)
        self.size = splats.size
        self.code_shape = (N_INPUTS, *latent_shape(vae, splats.size))

    def inputs(self, rgb: Tensor, alpha: Tensor, splats: Tensor | None) -> Tensor:
        """Features [B,6,14,S,S] of the fitted splatter images. Raises UserError if there are none."""
        if splats is None:
            raise UserError("representation 'joint' encodes fitted splats, but an object has none; use kind 'mosaic'")
        # Inputs of objects on disk are computed on the CPU, wherever the networks are.
        rays = SplatRays(self._rays[0].anchor.to(splats.device), self._rays[0].pixel)
        return splat_features(splats, rays, self.size)

    def posterior(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, deviation = self.encoder.posterior(inputs.flatten(0, 1))
        shape = inputs.shape[:2]
        return mean.unflatten(0, shape), deviation.unflatten(0, shape)

    def code(self, mean: Tensor, deviation: Tensor, noise: Tensor | None) -> Tensor:
        latent = mean if noise is None else mean + deviation * noise
        return latent * self.encoder.scaling_factor

    def decode(self, code: Tensor) -> Tensor:
        return super().decode(code / self.encoder.scaling_factor)

    def condition_latent(self, images: Tensor) -> Tensor:
        """Latents [B,C,h,w] of images at the splats' size, in the units of the VAE that encodes them.

        Without a stock VAE, they are a view whose geometry is zero, which no view of a fit is. Images are on gray, the
        zero of color features, like pixels that nothing covers.
        """
        size = (self.size, self.size)
        if tuple(images.shape[-2:]) != size:
            images = functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        if self.stock is not None:
            latents: Tensor = self.stock.encode(2 * images - 1).latent_dist.mode() * self.stock.config["scaling_factor"]
            return latents
        features = images.new_zeros(len(images), N_CHANNELS, *size)
        features[:, CHANNELS["rgb"]] = 2 * images - 1
        return self.encoder.posterior(features)[0] * self.encoder.scaling_factor

    def zero_latent(self, size: int, device: torch.device) -> Tensor:
        """Zeros with a stock VAE, which no image has as its latent; otherwise the latent of zeros."""
        if self.stock is not None:
            return torch.zeros(1, *self.code_shape[1:], device=device)
        return super().zero_latent(size, device)

    def save(self, folder: Path) -> None:
        super().save(folder)
        if self.stock is not None:
            self.stock.save_pretrained(folder / STOCK)
            forget_origin(folder / STOCK)

    def networks(self) -> list[nn.Module]:
        return [self.decoder, self.encoder.encoder]

    def use_bf16_weights(self, whole: bool) -> None:
        self.encoder.whole_bf16 = self.decoder.vae.whole_bf16 = whole
