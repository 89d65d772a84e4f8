"""Load the networks of a trained method's folder, with weights in float32 or int8."""

from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPVisionModelWithProjection

from z1g.core.errors import UserError
from z1g.networks.conditioning import Conditioning
from z1g.networks.int8 import restored_folder
from z1g.networks.reference_denoiser import ReferenceDenoiser
from z1g.networks.stored import read_network


def autoencoder(folder: Path) -> AutoencoderKL:
    """The VAE in float32. Raises UserError if it is missing or does not fit."""
    vae: AutoencoderKL = _network(AutoencoderKL, folder / "vae")
    return vae


def denoiser(folder: Path, train_conditioning: bool) -> ReferenceDenoiser:
    """UNet, image encoder and prompt in float32, with the statistics of the codes that they were trained on.

    train_conditioning: whether the image encoder and the prompt are trainable. Raises UserError if a network is
    missing or does not fit.
    """
    conditioning = _network(Conditioning, folder / "conditioning")
    denoiser = ReferenceDenoiser(
        _network(UNet2DConditionModel, folder / "unet"),
        _network(CLIPVisionModelWithProjection, folder / "vision_encoder"),
        conditioning.prompt,
        conditioning.ramping,
        train_conditioning=train_conditioning,
    )
    denoiser.code_statistics = conditioning.mean, conditioning.deviation
    return denoiser


def _network(cls: Any, folder: Path) -> Any:
    with restored_folder(folder) as restored:
        try:
            return read_network(cls, restored)
        except UserError as error:
            raise UserError(str(error).replace(str(restored), str(folder))) from error
