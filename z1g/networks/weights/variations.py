"""Load the published pipeline of Stable Diffusion Image Variations as plain tensors."""

from __future__ import annotations

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPVisionModelWithProjection

from z1g.core.errors import UserError
from z1g.networks.weights.base import DiffusionNetworks
from z1g.networks.weights.layout import VARIATIONS_NAME
from z1g.networks.weights.parts import Source


def autoencoder(pretrained: str, revision: str) -> AutoencoderKL:
    """The VAE. Raises UserError if the folder or the hub does not have it."""
    vae: AutoencoderKL = _source(pretrained, revision).part(AutoencoderKL, "vae")
    return vae


def diffusion(pretrained: str, revision: str) -> DiffusionNetworks:
    """UNet, image encoder and the processor of its images. Raises UserError if they are missing or do not fit."""
    source = _source(pretrained, revision)
    processor = source.processor("feature_extractor")
    unet: UNet2DConditionModel = source.part(UNet2DConditionModel, "unet")
    vision: CLIPVisionModelWithProjection = source.part(CLIPVisionModelWithProjection, "image_encoder")
    width, token = int(vision.config.projection_dim), int(unet.config["cross_attention_dim"])
    if width != token:
        raise UserError(
            f"model.pretrained: {pretrained}: image_encoder gives {width} channels, but the unet attends to {token}"
        )
    side = int(vision.config.image_size)
    made = tuple(processor.zeros(side).shape[2:])
    if made != (side, side):
        raise UserError(
            f"model.pretrained: {pretrained}: feature_extractor makes images of {made} pixels, but the image_encoder "
            f"sees {side}"
        )
    return DiffusionNetworks(unet, vision, False, processor)


def _source(pretrained: str, revision: str) -> Source:
    return Source(pretrained, VARIATIONS_NAME, "vae, unet, image_encoder, feature_extractor and scheduler", revision)
