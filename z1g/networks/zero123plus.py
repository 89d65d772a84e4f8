"""Loads the published Zero123++ pipeline: safetensors only, no code from the hub is run."""

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from z1g.errors import UserError
from z1g.networks.denoiser import Denoiser

T = TypeVar("T")


def autoencoder(pretrained: str) -> AutoencoderKL:
    """The VAE. Raises UserError where the folder or the hub does not have it."""
    return _part(AutoencoderKL, pretrained, "vae")


def denoiser(pretrained: str) -> Denoiser:
    """UNet, vision encoder and the text encoder's embedding of the empty prompt, [77,D]."""
    ramping = _ramping(pretrained)
    unet = _part(UNet2DConditionModel, pretrained, "unet")
    vision = _part(CLIPVisionModelWithProjection, pretrained, "vision_encoder")
    tokenizer = _part(CLIPTokenizer, pretrained, "tokenizer")
    text = _part(CLIPTextModel, pretrained, "text_encoder")
    if len(tokenizer) < text.config.vocab_size:
        # transformers makes an empty tokenizer where files are missing.
        raise UserError(
            f"model.pretrained: {pretrained} has no usable 'tokenizer' (it knows {len(tokenizer)} words, "
            f"the text encoder {text.config.vocab_size})"
        )
    length = tokenizer.model_max_length
    tokens = tokenizer("", padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    with torch.no_grad():
        prompt = text(tokens.input_ids)[0][0]
    if len(ramping) != len(prompt):
        raise UserError(f"{pretrained}: {len(ramping)} ramping_coefficients for a prompt of {len(prompt)} tokens")
    return Denoiser(unet, vision, prompt, ramping, train_conditioning=False)


def _part(cls: type[T], pretrained: str, subfolder: str) -> T:
    loader: Any = cls
    kwargs = {} if cls is CLIPTokenizer else {"use_safetensors": True}
    try:
        part: T = loader.from_pretrained(pretrained, subfolder=subfolder, **kwargs)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"model.pretrained: {pretrained} has no usable '{subfolder}' ({_first(error)}); "
            "give a hub name that this machine can reach or a folder with vae, unet, vision_encoder, text_encoder, "
            "tokenizer and model_index.json"
        ) from error
    return part


def _ramping(pretrained: str) -> torch.Tensor:
    """The share of the image embedding that each token gets, from the pipeline's index."""
    folder, name = Path(pretrained), "model_index.json"
    try:
        file = folder / name if folder.is_dir() else Path(hf_hub_download(pretrained, name))
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        unreachable = f"is no folder here and no hub name that can be reached ({_first(error)})"
        problem = f"has no readable {name}" if folder.is_dir() else unreachable
        raise UserError(f"model.pretrained: {pretrained} {problem}") from error
    try:
        return torch.tensor(json.loads(text)["ramping_coefficients"], dtype=torch.float32)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"model.pretrained: {file} has no list ramping_coefficients; is it a Zero123++ pipeline?"
        ) from error


def _first(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
