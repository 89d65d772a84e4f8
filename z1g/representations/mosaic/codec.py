"""Encoder and splatter decoder that share one VAE."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from z1g.core.errors import UserError
from z1g.core.seeding import seeded
from z1g.core.weights import load_exactly
from z1g.gaussians.channels import N_CHANNELS, SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.geometry.mosaic import mosaic_shape, tile
from z1g.networks.autoencoder import RGB, ImageEncoder, latent_shape
from z1g.networks.int8 import load_restored
from z1g.networks.preprocessing import VAE, ImageProcessor
from z1g.networks.stored import read_network
from z1g.representations.folder import REMEDY
from z1g.representations.mosaic.decoder import SplatterDecoder
from z1g.representations.mosaic.decoder_options import DecoderOptions
from z1g.representations.mosaic.units import scale_image, scale_latents
from z1g.representations.scale import ScaleActivation
from z1g.representations.splat_features import SplatRays, splat_features, splat_rays
from z1g.representations.vae_codec import VaeCodec

HEAD_SEED = 1
INPUT_BACKGROUND = 0.5
HEADS_FILE = "heads.safetensors"


class MosaicCodec(VaeCodec):
    """Encoder and decoder that share the layers of one VAE. New layers are initialized with a fixed seed."""

    encoder: ImageEncoder
    decoder: SplatterDecoder
    seen_anchor: Tensor

    def __init__(
        self, vae: AutoencoderKL, input_size: int, sees: Literal["images", "splats"], options: DecoderOptions,
        scale: ScaleActivation, camera: CameraOptions, splats: SplatOptions, processor: ImageProcessor | None = None,
    ) -> None:  # fmt: skip
        """input_size: side of an input view in the mosaic, pixels. sees: what is encoded, see `Mosaic`.

        processor: of condition images; None: 2x - 1.
        """
        super().__init__(vae)
        self.uses_splats = sees == "splats"
        with seeded(HEAD_SEED):
            rays = splat_rays(camera, options.path.side(input_size, splats.size))
            decoder = SplatterDecoder(vae, options, scale, rays)
            self.encoder, self.decoder = ImageEncoder(vae, N_CHANNELS if self.uses_splats else 0), decoder
        seen = splat_rays(camera, splats.size)
        self.seen_pixel = seen.pixel
        self.register_buffer("seen_anchor", seen.anchor.float(), persistent=False)
        self.input_size, self.processor = input_size, processor
        self.code_shape = mosaic_code(vae, input_size)

    def inputs(self, rgb: Tensor, alpha: Tensor, splats: Tensor | None) -> Tensor:
        """Mosaics [B,3,3·size,2·size] of images in 0..1 on gray, resized bilinearly as in the original.

        With `uses_splats`, the features of the splats follow, see `splat_features`: [B,17,3·size,2·size]. Raises
        UserError if there are none.
        """
        size = self.input_size
        images = rgb + (1 - alpha) * INPUT_BACKGROUND
        if images.shape[-1] != size:
            flat = functional.interpolate(images.flatten(0, 1), (size, size), mode="bilinear", align_corners=False)
            images = flat.unflatten(0, images.shape[:2])
        if not self.uses_splats:
            return tile(images)
        if splats is None:
            raise UserError("representation.sees 'splats' needs fitted splats of all objects; use 'images'")
        # Inputs of objects on disk are computed on the CPU, wherever the networks are.
        rays = SplatRays(self.seen_anchor.to(splats.device), self.seen_pixel)
        return tile(torch.cat([images, splat_features(splats, rays, size)], dim=2))

    def posterior(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        images = scale_image(2 * inputs[:, :RGB] - 1)
        return self.encoder.posterior(torch.cat([images, inputs[:, RGB:]], dim=1) if self.uses_splats else images)

    def code(self, mean: Tensor, deviation: Tensor, noise: Tensor | None) -> Tensor:
        latent = mean if noise is None else mean + deviation * noise
        return scale_latents(latent * self.encoder.scaling_factor)

    def condition_latent(self, images: Tensor) -> Tensor:
        """Without the scaling factor, as in Zero123++: [B,C,H/f,W/f]."""
        inputs = 2 * images - 1 if self.processor is None else self.processor(images)
        return self.encoder.posterior(inputs)[0]

    def zero_latent(self, size: int, device: torch.device) -> Tensor:
        if self.processor is None:
            return super().zero_latent(size, device)
        return self.encoder.posterior(self.processor.zeros(size).to(device))[0]

    def networks(self) -> list[nn.Module]:
        return [self.decoder, self.encoder.encoder]

    def use_bf16_weights(self, whole: bool) -> None:
        self.encoder.whole_bf16 = self.decoder.whole_bf16 = whole

    def last_layers(self) -> list[Tensor]:
        weight = self.decoder.geometry_out.weight
        return super().last_layers() + ([weight] if weight.requires_grad else [])

    def save(self, folder: Path) -> None:
        """Write the VAE in diffusers' layout, the splat heads and the processor of condition images, if any."""
        super().save(folder)
        if self.processor is not None:
            self.processor.save(folder / VAE)
        self.save_heads(folder)

    def save_heads(self, folder: Path) -> None:
        """Write the layers that are not part of the VAE."""
        heads = {name: value.contiguous() for name, value in Heads(self).state_dict().items()}
        save_file(heads, folder / HEADS_FILE)

    def load_heads(self, folder: Path) -> None:
        """Inverse of `save_heads`. Raises UserError with the missing, extra and misshapen tensors."""
        file, remedy = folder / HEADS_FILE, REMEDY.format(folder=folder)
        try:
            heads = load_restored(file)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{file} cannot be read, so the splat heads would be untrained: {error}. {remedy}"
            ) from error
        load_exactly(Heads(self), heads, file, remedy=remedy)


class Heads(nn.Module):
    """The layers of a codec that are not part of the VAE, under the names in `HEADS_FILE`."""

    def __init__(self, codec: MosaicCodec) -> None:
        super().__init__()
        self.geometry_out, self.scale_bias = codec.decoder.geometry_out, codec.decoder.scale_bias
        self.downsampler, self.extra_in = codec.decoder.downsampler, codec.encoder.extra_in


def mosaic_code(vae: AutoencoderKL, input_size: int) -> tuple[int, int, int]:
    """Shape [C,h,w] of the code of six input views of `input_size` pixels."""
    channels, side, _ = latent_shape(vae, input_size)
    return mosaic_shape(channels, side)


def load_vae(folder: Path) -> AutoencoderKL:
    """The autoencoder that `MosaicCodec.save` wrote."""
    return read_network(AutoencoderKL, folder / "vae", REMEDY.format(folder=folder))
