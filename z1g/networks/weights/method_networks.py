"""Load the networks of a trained method's folder, with weights in float32 or int8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from diffusers import AutoencoderKL, UNet2DConditionModel

from z1g.core.errors import UserError
from z1g.networks.conditioning import Conditioning
from z1g.networks.preprocessing import CLIP, ImageProcessor
from z1g.networks.prompted_denoiser import PromptedDenoiser
from z1g.networks.reference_denoiser import ReferenceDenoiser
from z1g.networks.stored import read_network
from z1g.networks.vision.stored import read_encoder
from z1g.networks.weights.layout import clip_sample
from z1g.networks.wider import wider_unet

D = TypeVar("D", bound=PromptedDenoiser)


def autoencoder(folder: Path, remedy: str = "", name: str = "vae") -> AutoencoderKL:
    """The VAE in float32. Raises UserError, ending with `remedy`, if it is missing or does not fit."""
    vae: AutoencoderKL = read_network(AutoencoderKL, folder / name, remedy)
    return vae


def conditioning(folder: Path, remedy: str = "") -> Conditioning:
    """Prompt, ramping and the statistics of codes. Raises UserError if they are missing or do not fit."""
    parts: Conditioning = read_network(Conditioning, folder / "conditioning", remedy)
    return parts


def denoiser(
    folder: Path, parts: Conditioning, train_conditioning: bool, remedy: str = "", channels: int | None = None
) -> ReferenceDenoiser:
    """UNet, image encoder and prompt in float32, with the statistics of the codes that they were trained on.

    parts: see `conditioning`. train_conditioning: whether the image encoder and the prompt are trainable. channels: of
    codes, if more than the model's, whose statistics are then unknown. Raises UserError if a network is missing or does
    not fit.
    """
    made = prompted(ReferenceDenoiser, folder, parts, train_conditioning, remedy, channels)
    if channels is not None:
        made.code_statistics = None
    return made


def prompted(
    make: Callable[..., D], folder: Path, parts: Conditioning, train_conditioning: bool, remedy: str = "",
    channels: int | None = None,
) -> D:  # fmt: skip
    """`denoiser` of any class of `PromptedDenoiser`, made by `make` with the arguments of `ReferenceDenoiser`."""
    unet = read_network(UNet2DConditionModel, folder / "unet", remedy)
    denoiser = make(
        unet if channels is None else wider_unet(unet, channels),
        read_encoder(folder / "vision_encoder", remedy),
        parts.prompt,
        parts.ramping,
        train_conditioning=train_conditioning,
        processor=ImageProcessor.of_folder(folder, CLIP, remedy),
        clip_sample=_clips(folder / "scheduler" / "scheduler_config.json", remedy),
    )
    denoiser.code_statistics, denoiser.objective = (parts.mean, parts.deviation), parts.objective
    denoiser.distilled_steps = parts.distilled_steps
    return denoiser


def _clips(scheduler: Path, remedy: str) -> bool:
    """Whether a folder's scheduler clips predicted codes. Raises UserError if it cannot be read."""
    try:
        return clip_sample(scheduler, absent=False)
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{scheduler} cannot be read: {error}. {remedy}") from error
