"""Options of the attribute images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import N_INPUTS, CameraOptions
from z1g.networks.weights import Model
from z1g.representations.attributes.denoiser_options import AttributeDenoiserOptions
from z1g.representations.attributes.mappings import Mappings
from z1g.representations.base import Representation

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL

    from z1g.networks.denoiser import Denoiser
    from z1g.representations.attributes.codec import AttributeCodec
    from z1g.representations.codec import Codec, Trained


ROTARY_CHANNELS = 6
"""Smallest width of a head with a pair of channels for each of three axes."""


class Attributes(Representation):
    """Five color images of each view, each with its own latent (the published method, arXiv 2501.05427).

    Codes are encodings of the fitted splats: position, opacity, scale, rotation and color.
    """

    kind: Literal["attributes"] = "attributes"
    mappings: Mappings = Mappings()
    encoding: Literal["per_view", "sheet"] = Field(
        "per_view",
        description="what the VAE sees at once. per_view: an attribute of one view; sheet: of all six, tiled 3x2, so "
        "that latents depend on neighboring views",
    )
    decoder: Literal["finetuned", "stock"] = Field(
        "finetuned", description="whether stage 1 trains the decoder; stock: as published, stage 1 trains nothing"
    )
    l1: float = Field(1.0, ge=0, le=1e6, description="weight of the mean absolute error of attribute images in stage 1")
    denoiser: AttributeDenoiserOptions = AttributeDenoiserOptions()
    of_stage_2: ClassVar[tuple[str, ...]] = ("denoiser",)

    @property
    def encodes_splats(self) -> bool:
        return True

    @property
    def trains_parts(self) -> bool:
        return self.denoiser.alone_share > 0

    @property
    def in_turns(self) -> bool:
        return bool(self.denoiser.cascade)

    def problem(self, model: Model, splat_size: int) -> str | None:
        factor = model.latent_factor
        if splat_size % factor:
            return f"kind 'attributes' needs splat.size {splat_size} to be a multiple of {factor}, the latent factor"
        if self.decoder == "stock" and not model.pretrained_encoder:
            return f"decoder 'stock' needs a model with published weights, but those of '{model.kind}' are random"
        first = set(self.denoiser.cascade)
        if first and not first < set(self.mappings.names):
            return f"denoiser.cascade {', '.join(sorted(first))} must be some of {', '.join(self.mappings.names)}"
        head, rotary = model.head_dim, self.denoiser.cross_attribute and self.denoiser.rotary
        if rotary and head is not None and (head < ROTARY_CHANNELS or head % 2):
            return (
                f"denoiser.rotary needs heads of an even number of channels from {ROTARY_CHANNELS} on, but "
                f"model.unet_size.head_dim is {head}; set denoiser.rotary to false"
            )
        return None

    def code_shape(self, model: Model, splat_size: int) -> tuple[int, ...]:
        side = splat_size // model.latent_factor
        return len(self.mappings.names) * N_INPUTS, model.latent_channels, side, side

    def clipped(self, splats: torch.Tensor) -> dict[str, int]:
        return self.mappings.clipped(splats.float())

    def new_codec(self, model: Model, camera: CameraOptions, splats: SplatOptions) -> Codec:
        codec = self._codec(model.autoencoder(), splats)
        if model.pretrained_encoder:
            codec.decoder.post_quant_conv.requires_grad_(False)
        if self.decoder == "stock":
            codec.decoder.requires_grad_(False)
        return codec

    def load_codec(self, folder: Path, camera: CameraOptions, splats: SplatOptions) -> Codec:
        from z1g.networks.weights import method_networks
        from z1g.representations.folder import REMEDY

        codec = self._codec(method_networks.autoencoder(folder, REMEDY.format(folder=folder)), splats)
        codec.requires_grad_(False).eval()
        return codec

    def new_denoiser(self, model: Model, camera: CameraOptions, splats: SplatOptions) -> Denoiser:
        from z1g.networks.multiview.attributes import new_layers
        from z1g.representations.attributes.denoiser import AttributeDenoiser, grown

        if model.method is not None:
            from z1g.representations.attributes import stored

            return stored.denoiser(model.method, self.mappings, self.denoiser, camera, model.trains_vision)
        parts, options = model.diffusion(), self.denoiser.of(model.process)
        denoiser = AttributeDenoiser(
            grown(parts.unet, self.mappings, options, N_INPUTS),
            parts.vision,
            self.mappings,
            options,
            camera,
            parts.train_vision,
            parts.processor,
        )
        added = ("conv_in", "class_embedding", *new_layers(denoiser.unet))
        denoiser.new_layers = tuple(f"unet.{name}" for name in added)
        return denoiser

    def save(self, folder: Path, trained: Trained, camera: CameraOptions, splats: SplatOptions) -> None:
        from z1g.representations import folder as method_folder
        from z1g.representations.attributes import stored

        options = stored.save(folder, trained)
        # The folder has to tell what its UNet predicts.
        method_folder.write(folder, self.model_copy(update={"denoiser": options}), camera, splats)

    def load(self, folder: Path, camera: CameraOptions, splats: SplatOptions, device: torch.device) -> Trained:
        from z1g.representations.attributes import stored
        from z1g.representations.codec import Trained
        from z1g.representations.folder import require_codes

        codec = self.load_codec(folder, camera, splats).for_inference(device)
        statistics = stored.statistics(folder)
        require_codes(folder, codec.code_shape[1:], statistics["zero_latent"].shape[1:])
        denoiser = stored.denoiser(folder, self.mappings, self.denoiser, camera, train_vision=False)
        statistics = {name: value.to(device) for name, value in statistics.items()}
        return Trained(codec, denoiser.to(device).requires_grad_(False).eval(), statistics)

    def _codec(self, vae: AutoencoderKL, splats: SplatOptions) -> AttributeCodec:
        from z1g.representations.attributes.codec import AttributeCodec

        return AttributeCodec(vae, self.mappings, self.encoding, splats.size, self.l1)
