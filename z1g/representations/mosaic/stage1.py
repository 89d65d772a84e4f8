"""What stage 1 produces: encoder and splatter decoder on one VAE, built, saved and loaded alike everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from z1g.core.seeding import seeded
from z1g.core.weights import load_exactly
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, Cameras, pixel_rays, view_frame
from z1g.geometry.mosaic import COLUMNS, ROWS, tile
from z1g.networks.autoencoder import ImageEncoder
from z1g.networks.fused.modules import as_files_want, fuse_where_possible
from z1g.networks.stored import read_network
from z1g.representations.mosaic.decoder import SplatRays, SplatterDecoder

if TYPE_CHECKING:
    from z1g.config.tree import Experiment

HEAD_SEED = 1
OWN = ("geometry_out", "scale_bias", "downsampler")
"""The decoder's layers that are not the VAE's."""


def splat_rays(camera: CameraOptions, size: int) -> SplatRays:
    """The rays of the splats' pixels, as a sheet in the view-1 frame.

    The six inputs stand alike around every object, so these are constants of the configuration.
    """
    poses = camera.poses(0)
    c2w = (view_frame(poses, camera.radius) @ poses)[list(INPUT_VIEWS)]
    cameras = Cameras(torch.from_numpy(c2w).float()[None], camera.fov_y_deg, size, size)
    origins, directions = pixel_rays(cameras)
    return SplatRays(tile(origins + camera.radius * directions)[0], camera.radius / cameras.focal)


@dataclass(frozen=True)
class Stage1:
    """Encoder and decoder share the layers of `vae`."""

    vae: AutoencoderKL
    encoder: ImageEncoder
    decoder: SplatterDecoder

    @classmethod
    def build(cls, config: Experiment, vae: AutoencoderKL) -> Stage1:
        """Put the heads on a VAE; the new layers' weights are seeded."""
        options = config.autodecoder
        with seeded(HEAD_SEED):
            rays = splat_rays(config.camera, options.decoder.path.side(options.input_size, config.splat.size))
            decoder = SplatterDecoder(vae, options.decoder, options.scale, rays)
        return cls(vae, ImageEncoder(vae), decoder)

    @classmethod
    def create(cls, config: Experiment) -> Stage1:
        """As the model arrives, before training; what stage 1 trains has `requires_grad`."""
        stage1 = cls.build(config, config.model.autoencoder())
        pretrained = config.model.pretrained_encoder
        codes = config.autodecoder.codes
        follows = codes.kind == "encoder" and (codes.trains_encoder or not pretrained)
        stage1.encoder.requires_grad_(follows)
        if pretrained:
            stage1.decoder.post_quant_conv.requires_grad_(False)
        return stage1

    @classmethod
    def load(cls, folder: Path, config: Experiment) -> Stage1:
        """Read what `save` wrote, frozen."""
        stage1, heads = cls.build(config, read_network(AutoencoderKL, folder / "vae")), folder / "heads.safetensors"
        names = [name for name in stage1.decoder.state_dict() if name.startswith(OWN)]
        load_exactly(stage1.decoder, load_file(heads), heads, only=names)
        stage1.encoder.requires_grad_(False).eval()
        stage1.decoder.requires_grad_(False).eval()
        return stage1

    def save(self, folder: Path) -> None:
        """Write the VAE in diffusers' layout and the splat heads."""
        as_files_want(self.vae)
        self.vae.save_pretrained(folder / "vae")
        own = {name: v for name, v in self.decoder.state_dict().items() if name.startswith(OWN)}
        save_file({name: value.contiguous() for name, value in own.items()}, folder / "heads.safetensors")

    def to(self, device: torch.device) -> Stage1:
        """Move to a device, in place, to be run there rather than trained: by fused kernels, where there are such."""
        self.vae.to(device)
        self.encoder.to(device)
        self.decoder.to(device)
        fuse_where_possible(self.vae, device)
        return self


def code_shape(config: Experiment, vae: AutoencoderKL) -> tuple[int, int, int]:
    """C,h,w of a code."""
    side = config.autodecoder.input_size // config.model.latent_factor
    return int(vae.config["latent_channels"]), ROWS * side, COLUMNS * side
