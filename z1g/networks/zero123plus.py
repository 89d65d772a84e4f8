"""Loads the published Zero123++ pipeline: safetensors only, no code from the hub is run."""

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import hf_hub_download
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from z1g.errors import UserError
from z1g.networks.denoiser import Denoiser

T = TypeVar("T")


def autoencoder(pretrained: str) -> AutoencoderKL:
    """The VAE. Raises UserError where the folder or the hub does not have it."""
    return _part(AutoencoderKL, pretrained, "vae")


def denoiser(pretrained: str) -> Denoiser:
    """UNet, vision encoder and the text encoder's embedding of the empty prompt, [77,D]."""
    unet = _part(UNet2DConditionModel, pretrained, "unet")
    vision = _part(CLIPVisionModelWithProjection, pretrained, "vision_encoder")
    tokenizer = _part(CLIPTokenizer, pretrained, "tokenizer")
    text = _part(CLIPTextModel, pretrained, "text_encoder")
    length = tokenizer.model_max_length
    tokens = tokenizer("", padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    with torch.no_grad():
        prompt = text(tokens.input_ids)[0][0]
    ramping = torch.tensor(_index(pretrained)["ramping_coefficients"], dtype=torch.float32)
    if len(ramping) != len(prompt):
        raise UserError(f"{pretrained}: {len(ramping)} ramping_coefficients for a prompt of {len(prompt)} tokens")
    return Denoiser(unet, vision, prompt, ramping, train_conditioning=False)


def _part(cls: type[T], pretrained: str, subfolder: str) -> T:
    loader: Any = cls
    kwargs = {} if cls is CLIPTokenizer else {"use_safetensors": True}
    try:
        part: T = loader.from_pretrained(pretrained, subfolder=subfolder, **kwargs)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"model.pretrained: {pretrained} has no usable '{subfolder}' ({first}); "
            "give a hub name that this machine can reach or a folder with vae, unet, vision_encoder, text_encoder, "
            "tokenizer and model_index.json"
        ) from error
    return part


def _index(pretrained: str) -> dict[str, Any]:
    folder = Path(pretrained)
    file = folder / "model_index.json" if folder.is_dir() else Path(hf_hub_download(pretrained, "model_index.json"))
    if not file.is_file():
        raise UserError(f"model.pretrained: {file} is missing")
    index: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if "ramping_coefficients" not in index:
        raise UserError(f"model.pretrained: {file} has no ramping_coefficients; is it a Zero123++ pipeline?")
    return index
