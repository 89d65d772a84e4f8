"""Encoder and splatter decoder that share one VAE."""

from __future__ import annotations

import math
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
from z1g.gaussians.channels import N_CHANNELS, SplatOptions, join, split
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, Cameras, pixel_rays, view_frame
from z1g.geometry.mosaic import mosaic_shape, tile, untile
from z1g.networks.autoencoder import RGB, ImageEncoder
from z1g.networks.fused.modules import fuse_where_possible, to_contiguous
from z1g.networks.int8 import load_restored
from z1g.networks.stored import forget_origin, read_network
from z1g.representations.codec import Codec
from z1g.representations.folder import REMEDY
from z1g.representations.mosaic.decoder import SplatRays, SplatterDecoder
from z1g.representations.mosaic.decoder_options import DecoderOptions
from z1g.representations.mosaic.units import scale_image, scale_latents
from z1g.representations.scale import ScaleActivation

HEAD_SEED = 1
INPUT_BACKGROUND = 0.5
SMALLEST = 1 / 32
"""Standard deviation of a Gaussian, in pixels, whose logarithm is -1 for the encoder."""
HEADS_FILE = "heads.safetensors"


def splat_rays(camera: CameraOptions, size: int) -> SplatRays:
    """Rays of the splats' pixels, as a mosaic in the view-1 frame.

    The six inputs have the same poses for every object, so the rays depend on the configuration only.
    """
    poses = camera.poses(0)
    c2w = (view_frame(poses, camera.radius) @ poses)[list(INPUT_VIEWS)]
    cameras = Cameras(torch.from_numpy(c2w).float()[None], camera.fov_y_deg, size, size)
    origins, directions = pixel_rays(cameras)
    return SplatRays(tile(origins + camera.radius * directions)[0], camera.radius / cameras.focal)


def splat_features(splats: Tensor, rays: SplatRays, size: int) -> Tensor:
    """Activated splatter images [B,6,14,S,S] as channels [B,6,14,size,size] in about -1..1 for an encoder.

    Positions are relative to the anchors of `rays`, scales are logarithms of multiples of its pixel, and quaternions
    have a positive real part, since q and -q are the same rotation. All but the opacity is multiplied by it: what
    cannot be seen has no other effect. Splats are averaged to a smaller size, or repeated to a larger one.
    """
    parts = split(splats.float(), dim=2)
    opacity, rotation = parts["opacity"], parts["rotation"]
    features = {
        "position": parts["position"] - untile(rays.anchor[None]),
        "opacity": torch.ones_like(opacity),
        "scale": (parts["scale"] / rays.pixel).clamp(SMALLEST, 1 / SMALLEST).log() / -math.log(SMALLEST),
        "rotation": torch.where(rotation[:, :, :1] < 0, -rotation, rotation),
        "rgb": 2 * parts["rgb"] - 1,
    }
    images = opacity * join(features, dim=2)
    if images.shape[-1] != size:
        flat = functional.interpolate(images.flatten(0, 1), (size, size), mode="area")
        images = flat.unflatten(0, images.shape[:2])
    return images


class MosaicCodec(Codec):
    """Encoder and decoder that share the layers of one VAE. New layers are initialized with a fixed seed."""

    encoder: ImageEncoder
    decoder: SplatterDecoder
    seen_anchor: Tensor

    def __init__(
        self, vae: AutoencoderKL, input_size: int, sees: Literal["images", "splats"], options: DecoderOptions,
        scale: ScaleActivation, camera: CameraOptions, splats: SplatOptions,
    ) -> None:  # fmt: skip
        """input_size: side of an input view in the mosaic, pixels. sees: what is encoded, see `Mosaic`."""
        super().__init__()
        self.uses_splats = sees == "splats"
        with seeded(HEAD_SEED):
            rays = splat_rays(camera, options.path.side(input_size, splats.size))
            decoder = SplatterDecoder(vae, options, scale, rays)
            self.encoder, self.decoder = ImageEncoder(vae, N_CHANNELS if self.uses_splats else 0), decoder
        seen = splat_rays(camera, splats.size)
        self.seen_pixel = seen.pixel
        self.register_buffer("seen_anchor", seen.anchor.float(), persistent=False)
        # In a tuple it is not registered as a submodule, which would list its parameters twice.
        self._vae = (vae,)
        self.input_size = input_size
        side = input_size // 2 ** (len(vae.encoder.down_blocks) - 1)
        self.code_shape = mosaic_shape(int(vae.config["latent_channels"]), side)

    @property
    def vae(self) -> AutoencoderKL:
        """The autoencoder that contains the layers of both halves."""
        return self._vae[0]

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
        return tile(
            torch.cat([images, splat_features(splats, SplatRays(self.seen_anchor, self.seen_pixel), size)], dim=2)
        )

    def posterior(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        images = scale_image(2 * inputs[:, :RGB] - 1)
        return self.encoder.posterior(torch.cat([images, inputs[:, RGB:]], dim=1) if self.uses_splats else images)

    def code(self, mean: Tensor, deviation: Tensor, noise: Tensor | None) -> Tensor:
        latent = mean if noise is None else mean + deviation * noise
        return scale_latents(latent * self.encoder.scaling_factor)

    def decode(self, code: Tensor) -> Tensor:
        splats: Tensor = self.decoder(code)
        return splats

    def condition_latent(self, images: Tensor) -> Tensor:
        """Without the scaling factor, as in Zero123++: [B,C,H/f,W/f]."""
        return self.encoder.posterior(2 * images - 1)[0]

    def networks(self) -> list[nn.Module]:
        return [self.decoder, self.encoder.encoder]

    def use_bf16_weights(self, whole: bool) -> None:
        self.encoder.whole_bf16 = self.decoder.whole_bf16 = whole

    def for_inference(self, device: torch.device) -> MosaicCodec:
        self.vae.to(device)
        self.to(device)
        fuse_where_possible(self.vae, device)
        return self

    def save(self, folder: Path) -> None:
        """Write the VAE in diffusers' layout and the splat heads."""
        to_contiguous(self.vae)
        self.vae.save_pretrained(folder / "vae")
        forget_origin(folder / "vae")
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


def load_vae(folder: Path) -> AutoencoderKL:
    """The autoencoder that `MosaicCodec.save` wrote."""
    return read_network(AutoencoderKL, folder / "vae", REMEDY.format(folder=folder))
