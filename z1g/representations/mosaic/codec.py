"""Encoder and splatter decoder that share one VAE."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from z1g.core.errors import UserError
from z1g.core.seeding import seeded
from z1g.core.weights import load_exactly
from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, Cameras, pixel_rays, view_frame
from z1g.geometry.mosaic import mosaic_shape, tile
from z1g.networks.autoencoder import ImageEncoder
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
HEADS = ("geometry_out", "scale_bias", "downsampler")
"""Layers of the decoder that are not part of the VAE."""
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


class MosaicCodec(Codec):
    """Encoder and decoder that share the layers of one VAE. New layers are initialized with a fixed seed."""

    encoder: ImageEncoder
    decoder: SplatterDecoder

    def __init__(
        self, vae: AutoencoderKL, input_size: int, options: DecoderOptions, scale: ScaleActivation,
        camera: CameraOptions, splats: SplatOptions,
    ) -> None:  # fmt: skip
        """input_size: side of an input view in the mosaic, pixels."""
        super().__init__()
        with seeded(HEAD_SEED):
            rays = splat_rays(camera, options.path.side(input_size, splats.size))
            decoder = SplatterDecoder(vae, options, scale, rays)
        self.encoder, self.decoder = ImageEncoder(vae), decoder
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
        """Mosaics [B,3,3·size,2·size] in 0..1 on gray, resized bilinearly as in the original."""
        size = self.input_size
        images = rgb + (1 - alpha) * INPUT_BACKGROUND
        if images.shape[-1] != size:
            flat = functional.interpolate(images.flatten(0, 1), (size, size), mode="bilinear", align_corners=False)
            images = flat.unflatten(0, images.shape[:2])
        return tile(images)

    def posterior(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder.posterior(scale_image(2 * inputs - 1))

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
        heads = {name: value.contiguous() for name, value in self._heads().items()}
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
        load_exactly(self.decoder, heads, file, only=list(self._heads()), remedy=remedy)

    def _heads(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.decoder.state_dict().items() if name.startswith(HEADS)}


def load_vae(folder: Path) -> AutoencoderKL:
    """The autoencoder that `MosaicCodec.save` wrote."""
    return read_network(AutoencoderKL, folder / "vae", REMEDY.format(folder=folder))
