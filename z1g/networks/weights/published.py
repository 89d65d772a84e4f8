"""Load the published Zero123++ pipeline as plain tensors; no code from the hub is executed."""

import json
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import hf_hub_download
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection, PreTrainedModel

from z1g.core.errors import UserError
from z1g.core.weights import require_finite
from z1g.networks import stored
from z1g.networks.preprocessing import CLIP, VAE, ImageProcessor
from z1g.networks.preprocessing import FILE as PROCESSOR
from z1g.networks.reference_denoiser import ReferenceDenoiser
from z1g.networks.weights import layout as layout

IS_IT = "is it a Zero123++ pipeline?"
T = TypeVar("T")


def autoencoder(pretrained: str) -> AutoencoderKL:
    """The VAE. Raises UserError if the folder or the hub does not have it."""
    vae: AutoencoderKL = _part(AutoencoderKL, pretrained, "vae")
    return vae


def vae_processor(pretrained: str) -> ImageProcessor:
    """The processor of the images whose latents are the condition. Raises UserError if its file is missing."""
    return _processor(pretrained, VAE)


def denoiser(pretrained: str, with_processor: bool) -> ReferenceDenoiser:
    """UNet, vision encoder and the text encoder's embedding of the empty prompt, [77,D].

    with_processor: images are embedded as the pipeline's processor prepares them.
    """
    ramping = _from_file(pretrained, layout.INDEX, _ramping)
    clip_sample = _from_file(pretrained, layout.SCHEDULER, layout.clips)
    processor = _processor(pretrained, CLIP) if with_processor else None
    unet = _part(UNet2DConditionModel, pretrained, "unet")
    vision = _part(CLIPVisionModelWithProjection, pretrained, "vision_encoder")
    side = int(vision.config.image_size)
    made = (side, side) if processor is None else tuple(processor.zeros(side).shape[2:])
    if made != (side, side):
        raise UserError(
            f"model.pretrained: {pretrained}: {CLIP} makes images of {made} pixels, but the vision encoder sees {side}"
        )
    tokenizer = _tokenizer(pretrained)
    text = _part(CLIPTextModel, pretrained, "text_encoder")
    if len(tokenizer) < text.config.vocab_size:
        # If files are missing, transformers creates an empty tokenizer.
        raise UserError(
            f"model.pretrained: {pretrained} has no usable 'tokenizer' (it has {len(tokenizer)} tokens, "
            f"the text encoder {text.config.vocab_size})"
        )
    length = tokenizer.model_max_length
    tokens = tokenizer("", padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    with torch.no_grad():
        prompt = text(tokens.input_ids)[0][0]
    if len(ramping) != len(prompt):
        raise UserError(f"{pretrained}: {len(ramping)} ramping_coefficients for a prompt of {len(prompt)} tokens")
    return ReferenceDenoiser(unet, vision, prompt, ramping, False, processor, clip_sample)


def _part(cls: type[nn.Module], pretrained: str, subfolder: str) -> Any:
    """A network with all of its weights, converted to float32."""
    folder = Path(pretrained).expanduser()
    if folder.is_dir():
        absent = layout.missing(folder, (subfolder,))
        if absent:
            raise UserError(f"model.pretrained: {pretrained} lacks {', '.join(absent)} of a Zero123++ pipeline")
        forms: tuple[Any, ...] = (layout.form_of(folder, subfolder),)
    else:
        forms = layout.FORMS
    problem = ""
    for form in forms:
        try:
            part, info = _load(cls, str(folder) if folder.is_dir() else pretrained, subfolder, form)
        except (*stored.UNREADABLE, UnpicklingError) as error:
            problem = problem or stored.first_line(error)
            continue
        stored.require_all(info, f"model.pretrained: {pretrained} has no usable '{subfolder}'")
        require_finite(part.state_dict(), f"model.pretrained: {pretrained}, {subfolder}")
        return part
    raise UserError(
        f"model.pretrained: {pretrained} has no usable '{subfolder}' ({problem}); "
        "give a hub name that this machine can reach or a folder with vae, unet, vision_encoder, text_encoder, "
        "tokenizer and model_index.json"
    )


def _load(cls: Any, pretrained: str, subfolder: str, form: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    # By default transformers keeps the half precision of a checkpoint.
    dtype = {"dtype": torch.float32} if issubclass(cls, PreTrainedModel) else {"torch_dtype": torch.float32}
    return stored.load(cls, pretrained, {"subfolder": subfolder, **form, **dtype})


def _tokenizer(pretrained: str) -> CLIPTokenizer:
    folder = Path(pretrained).expanduser()
    try:
        return CLIPTokenizer.from_pretrained(str(folder) if folder.is_dir() else pretrained, subfolder="tokenizer")
    except (OSError, ValueError, RuntimeError) as error:
        problem = stored.first_line(error)
        raise UserError(f"model.pretrained: {pretrained} has no usable 'tokenizer' ({problem})") from error


def _processor(pretrained: str, part: str) -> ImageProcessor:
    return _from_file(pretrained, f"{part}/{PROCESSOR}", lambda file: ImageProcessor.read(file, IS_IT))


def _from_file(pretrained: str, name: str, read: Callable[[Path], T]) -> T:
    """What `read` makes of a file of the pipeline. Raises UserError if it is missing or not of such a pipeline."""
    folder = Path(pretrained).expanduser()
    try:
        file = folder / name if folder.is_dir() else Path(hf_hub_download(pretrained, name))
        file.open("rb").close()
    except (OSError, ValueError) as error:
        unreachable = f"is neither a folder nor a hub name that can be reached ({stored.first_line(error)})"
        problem = f"has no readable {name}" if folder.is_dir() else unreachable
        raise UserError(f"model.pretrained: {pretrained} {problem}") from error
    return read(file)


def _ramping(index: Path) -> torch.Tensor:
    """Weights of the image embedding in each token, from the pipeline's index."""
    try:
        return torch.tensor(json.loads(index.read_text(encoding="utf-8"))["ramping_coefficients"], dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"model.pretrained: {index} has no list ramping_coefficients; {IS_IT}") from error
