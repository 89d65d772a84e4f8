"""Options of the mosaic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from z1g.core.errors import UserError
from z1g.core.slots import OneOf
from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.geometry.mosaic import mosaic_shape
from z1g.networks.weights import Model
from z1g.representations.base import Representation
from z1g.representations.mosaic.decoder_options import DecoderOptions
from z1g.representations.scale import ScaleActivation
from z1g.representations.scale.biased import BiasedSoftplus

if TYPE_CHECKING:
    import torch

    from z1g.networks.denoiser import Denoiser
    from z1g.representations.codec import Codec, Trained


class Mosaic(Representation):
    """Six input images tiled 3x2 into one image with one latent, decoded to 14 channels (as in the original)."""

    kind: Literal["mosaic"] = "mosaic"
    input_size: int = Field(
        320, ge=16, le=8192, description="side of an input view, pixels; the encoder's input is a mosaic of six"
    )
    sees: Literal["images", "splats"] = Field(
        "images",
        description="what stage 1 encodes. images: the six input images (as in the original); splats: also the fitted "
        "splatter images, so that codes of objects that were not trained on have their geometry",
    )
    decoder: DecoderOptions = DecoderOptions()
    scale: Annotated[ScaleActivation, OneOf()] = BiasedSoftplus()

    @property
    def encodes_splats(self) -> bool:
        return self.sees == "splats"

    def problem(self, model: Model, splat_size: int) -> str | None:
        factor, path = model.latent_factor, self.decoder.path
        if not model.has_prompt:
            return f"kind 'mosaic' needs Zero123++'s prompt, which model '{model.kind}' lacks; use kind 'attributes'"
        if self.input_size % factor:
            return f"input_size {self.input_size} must be a multiple of {factor}, the model's latent factor"
        problem = path.problem(self.input_size, splat_size, factor.bit_length())
        if problem:
            return f"decoder.path '{path.kind}' {problem}; change the sizes or use path 'last_layer'"
        if self.sees == "splats" and model.pretrained_encoder and model.method is None:
            return f"sees 'splats' needs an encoder that is trained, but that of model '{model.kind}' is published"
        if self.decoder.mode == "fixed_rgb":
            if not model.pretrained_encoder:
                return "decoder.mode 'fixed_rgb' needs a model with published weights"
            if path.mixes_channels:
                return (
                    f"decoder.mode 'fixed_rgb' cannot be combined with path '{path.kind}', whose trained layers "
                    "would change the colors"
                )
        return None

    def code_shape(self, model: Model, splat_size: int) -> tuple[int, ...]:
        return mosaic_shape(model.latent_channels, self.input_size // model.latent_factor)

    def new_codec(self, model: Model, camera: CameraOptions, splats: SplatOptions) -> Codec:
        from z1g.representations.mosaic.codec import MosaicCodec

        vae, processor = model.autoencoder(), model.vae_processor()
        codec = MosaicCodec(vae, self.input_size, self.sees, self.decoder, self.scale, camera, splats, processor)
        if model.method is not None:
            codec.load_heads(model.method)
        elif model.pretrained_encoder:
            codec.decoder.post_quant_conv.requires_grad_(False)
        return codec

    def load_codec(self, folder: Path, camera: CameraOptions, splats: SplatOptions) -> Codec:
        from z1g.networks.conditioning import stored_code
        from z1g.networks.preprocessing import VAE, ImageProcessor
        from z1g.representations.folder import FILE, REMEDY, remedy, require_codes
        from z1g.representations.mosaic.codec import MosaicCodec, load_vae, mosaic_code

        vae, processor = load_vae(folder), ImageProcessor.of_folder(folder, VAE, REMEDY.format(folder=folder))
        require_codes(folder, mosaic_code(vae, self.input_size), stored_code(folder))
        if problem := self.decoder.path.problem(self.input_size, splats.size, len(vae.config["block_out_channels"])):
            path = self.decoder.path.kind
            raise UserError(f"{folder / FILE} cannot be used: its path '{path}' {problem}. {remedy(folder)}")
        codec = MosaicCodec(vae, self.input_size, self.sees, self.decoder, self.scale, camera, splats, processor)
        codec.load_heads(folder)
        codec.requires_grad_(False).eval()
        return codec

    def new_denoiser(self, model: Model, camera: CameraOptions, splats: SplatOptions) -> Denoiser:
        return model.denoiser()

    def save(self, folder: Path, trained: Trained, camera: CameraOptions, splats: SplatOptions) -> None:
        from z1g.representations.mosaic.pipeline import Zero1ToGPipeline

        Zero1ToGPipeline.of(trained, self, camera, splats).save_pretrained(folder)

    def load(self, folder: Path, camera: CameraOptions, splats: SplatOptions, device: torch.device) -> Trained:
        from z1g.representations.mosaic import trained

        return trained.load(folder, self, camera, splats, device)
