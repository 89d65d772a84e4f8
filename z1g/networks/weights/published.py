"""Load the published Zero123++ pipeline as plain tensors; no code from the hub is executed."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from z1g.core.errors import UserError
from z1g.core.files import read_json
from z1g.core.names import counted
from z1g.networks import stored
from z1g.networks.preprocessing import CLIP, VAE, ImageProcessor
from z1g.networks.reference_denoiser import ReferenceDenoiser
from z1g.networks.weights import layout as layout
from z1g.networks.weights.parts import Source

NAME = "Zero123++ pipeline"


def autoencoder(pretrained: str) -> AutoencoderKL:
    """The VAE. Raises UserError if the folder or the hub does not have it."""
    vae: AutoencoderKL = _source(pretrained).part(AutoencoderKL, "vae")
    return vae


def vae_processor(pretrained: str) -> ImageProcessor:
    """The processor of the images whose latents are the condition. Raises UserError if its file is missing."""
    return _source(pretrained).processor(VAE)


def denoiser(pretrained: str, with_processor: bool) -> ReferenceDenoiser:
    """UNet, vision encoder and the text encoder's embedding of the empty prompt, [77,D].

    with_processor: images are embedded as the pipeline's processor prepares them.
    """
    source = _source(pretrained)
    ramping = source.read(layout.INDEX, _ramping)
    clip_sample = source.read(layout.SCHEDULER, layout.clips)
    processor = source.processor(CLIP) if with_processor else None
    unet = source.part(UNet2DConditionModel, "unet")
    vision = source.part(CLIPVisionModelWithProjection, "vision_encoder")
    side = int(vision.config.image_size)
    made = (side, side) if processor is None else tuple(processor.zeros(side).shape[2:])
    if made != (side, side):
        raise UserError(
            f"model.pretrained: {pretrained}: {CLIP} makes images of {made} pixels, but the vision encoder sees {side}"
        )
    tokenizer = _tokenizer(pretrained)
    text = source.part(CLIPTextModel, "text_encoder")
    if len(tokenizer) < text.config.vocab_size:
        # If files are missing, transformers creates an empty tokenizer.
        raise UserError(
            f"model.pretrained: {pretrained} has no usable 'tokenizer' (it has {counted(len(tokenizer), 'token')}, "
            f"the text encoder {text.config.vocab_size})"
        )
    length = tokenizer.model_max_length
    tokens = tokenizer("", padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    with torch.no_grad():
        prompt = text(tokens.input_ids)[0][0]
    if len(ramping) != len(prompt):
        raise UserError(
            f"{pretrained}: {len(ramping)} ramping_coefficients for a prompt of {counted(len(prompt), 'token')}"
        )
    return ReferenceDenoiser(unet, vision, prompt, ramping, False, processor, clip_sample)


def _source(pretrained: str) -> Source:
    content = "vae, unet, vision_encoder, text_encoder, tokenizer and model_index.json"
    return Source(pretrained, NAME, content)


def _tokenizer(pretrained: str) -> CLIPTokenizer:
    folder = Path(pretrained).expanduser()
    try:
        return CLIPTokenizer.from_pretrained(str(folder) if folder.is_dir() else pretrained, subfolder="tokenizer")
    except (OSError, ValueError, RuntimeError) as error:
        problem = stored.first_line(error)
        raise UserError(f"model.pretrained: {pretrained} has no usable 'tokenizer' ({problem})") from error


def _ramping(index: Path) -> torch.Tensor:
    """Weights of the image embedding in each token, from the pipeline's index."""
    try:
        return torch.tensor(read_json(index)["ramping_coefficients"], dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"model.pretrained: {index} has no list ramping_coefficients; is it a {NAME}?") from error
