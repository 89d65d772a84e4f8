"""Synthetic tensors in place of results of upstream stages: they depend on names and shapes only."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from support.builders import ball_splats
from z1g.networks.finetune.lora import Lora
from z1g.networks.weights.scratch import Scratch


def replace_numbers(file: Path) -> None:
    """Replace the tensors of a file by values of realistic size that depend on their names and shapes only.

    Splats are placed on a ball. Statistics of codes are kept. numpy guarantees the streams of its legacy generator.
    """
    with safe_open(file, framework="pt") as tensors:
        metadata = tensors.metadata()
    state = load_file(file)
    for name, value in state.items():
        if name.startswith("object") and value.dim() == 4 and value.shape[1] == 14:
            state[name] = ball_splats(name.split("/")[0], value.shape[-1])
        elif name not in ("ramping", "zero_latent", "mean", "deviation") and value.is_floating_point():
            state[name] = numbers(name, value).to(value.dtype)
    save_file({name: value.contiguous() for name, value in state.items()}, file, metadata)


def numbers(name: str, like: Tensor) -> Tensor:
    """Reproducible values of a tensor's shape."""
    # Versions of transformers differ in these prefixes.
    name = name.removeprefix("text_model.").removeprefix("vision_model.")
    draw = np.random.RandomState(zlib.crc32(name.encode()))
    normal = torch.from_numpy(draw.standard_normal(tuple(like.shape) or (1,))).reshape(like.shape)
    if like.dim() == 0:
        return torch.full_like(normal, -2.5)
    if like.dim() == 1:
        return 1 + 0.1 * normal if name.endswith("weight") else 0.1 * normal
    if name.startswith("geometry_out"):
        normal = 0.1 * normal
    is_code = "/" in name or name.startswith("object")
    return normal if is_code else normal / np.sqrt(like[0].numel())


@contextmanager
def synthetic_initialization() -> Iterator[None]:
    """Initialize networks and adapters reproducibly: the initialization of libraries changes between versions.

    Parameters that are initialized to zero stay zero.
    """
    autoencoder, denoiser, prepare = Scratch.autoencoder, Scratch.denoiser, Lora.prepare

    def fixed(network: nn.Module, trained_only: bool = False) -> nn.Module:
        with torch.no_grad():
            for name, value in network.named_parameters():
                if value.any() and (value.requires_grad or not trained_only):
                    value.copy_(numbers(name, value))
        return network

    def prepared(self: Lora, network: Any) -> None:
        prepare(self, network)
        fixed(network, trained_only=True)

    with (
        patch.object(Scratch, "autoencoder", lambda self: fixed(autoencoder(self))),
        patch.object(Scratch, "denoiser", lambda self: fixed(denoiser(self))),
        patch.object(Lora, "prepare", prepared),
    ):
        yield
