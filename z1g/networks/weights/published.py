"""Load the published Zero123++ pipeline as plain tensors; no code from the hub is executed."""

import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import hf_hub_download
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection, PreTrainedModel

from z1g.core.errors import UserError
from z1g.core.weights import require_finite
from z1g.networks import stored
from z1g.networks.reference_denoiser import ReferenceDenoiser
from z1g.networks.weights import layout as layout


def autoencoder(pretrained: str) -> AutoencoderKL:
    """The VAE. Raises UserError if the folder or the hub does not have it."""
    vae: AutoencoderKL = _part(AutoencoderKL, pretrained, "vae")
    return vae


def denoiser(pretrained: str) -> ReferenceDenoiser:
    """UNet, vision encoder and the text encoder's embedding of the empty prompt, [77,D]."""
    ramping = _ramping(pretrained)
    unet = _part(UNet2DConditionModel, pretrained, "unet")
    vision = _part(CLIPVisionModelWithProjection, pretrained, "vision_encoder")
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
    return ReferenceDenoiser(unet, vision, prompt, ramping, train_conditioning=False)


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


def _ramping(pretrained: str) -> torch.Tensor:
    """Weights of the image embedding in each token, from the pipeline's index."""
    folder, name = Path(pretrained).expanduser(), layout.INDEX
    try:
        file = folder / name if folder.is_dir() else Path(hf_hub_download(pretrained, name))
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        unreachable = f"is neither a folder nor a hub name that can be reached ({stored.first_line(error)})"
        problem = f"has no readable {name}" if folder.is_dir() else unreachable
        raise UserError(f"model.pretrained: {pretrained} {problem}") from error
    try:
        return torch.tensor(json.loads(text)["ramping_coefficients"], dtype=torch.float32)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"model.pretrained: {file} has no list ramping_coefficients; is it a Zero123++ pipeline?"
        ) from error
