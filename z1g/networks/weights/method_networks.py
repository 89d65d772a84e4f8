"""Load the networks of a trained method's folder, with weights in float32 or int8."""

from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel

from z1g.networks.conditioning import Conditioning
from z1g.networks.reference_denoiser import ReferenceDenoiser
from z1g.networks.stored import read_network
from z1g.networks.vision.stored import read_encoder


def autoencoder(folder: Path) -> AutoencoderKL:
    """The VAE in float32. Raises UserError if it is missing or does not fit."""
    vae: AutoencoderKL = read_network(AutoencoderKL, folder / "vae")
    return vae


def conditioning(folder: Path) -> Conditioning:
    """Prompt, ramping and the statistics of codes. Raises UserError if they are missing or do not fit."""
    parts: Conditioning = read_network(Conditioning, folder / "conditioning")
    return parts


def denoiser(folder: Path, train_conditioning: bool) -> ReferenceDenoiser:
    """UNet, image encoder and prompt in float32, with the statistics of the codes that they were trained on.

    train_conditioning: whether the image encoder and the prompt are trainable. Raises UserError if a network is
    missing or does not fit.
    """
    parts = conditioning(folder)
    denoiser = ReferenceDenoiser(
        read_network(UNet2DConditionModel, folder / "unet"),
        read_encoder(folder / "vision_encoder"),
        parts.prompt,
        parts.ramping,
        train_conditioning=train_conditioning,
    )
    denoiser.code_statistics = parts.mean, parts.deviation
    return denoiser
