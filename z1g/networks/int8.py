"""Weights in int8, a quarter of their size, for models that travel.

Each matrix or kernel has one scale per output channel (symmetric quantization, the largest magnitude is 127), as in
Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference" (2018), section 3.1. Vectors and small
tensors keep float32.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from z1g.core.errors import UserError

SUFFIX = ".safetensors"
METADATA = {"z1g": "int8, one scale per output channel"}
SCALE = ".int8_scale"
"""End of the name of a quantized tensor's scales, float16 or float32 [O]."""
MINIMUM = 2048
"""Tensors with fewer values are stored as they are."""


def quantize(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values [O,...] and scales [O] of a tensor [O,...], with an error of at most half a scale.

    Scales are float16 where that has them to its full precision, else float32.
    """
    rows = tensor.detach().float().flatten(1)
    # A row of zeros has any scale.
    scale = (rows.abs().amax(1) / 127).where(rows.any(1), 1.0)
    half = torch.finfo(torch.float16)
    if half.tiny <= scale.min() and scale.max() <= half.max:
        # Values are rounded in units of the rounded scales, so that these add no error.
        scale = scale.half()
    return (rows / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8).view(tensor.shape), scale


def dequantize(values: Tensor, scale: Tensor) -> Tensor:
    """Inverse of `quantize`, float32 [O,...]."""
    return values * scale.float().view(-1, *[1] * (values.ndim - 1))


def is_quantized(file: Path) -> bool:
    """Whether a file's weights are in int8. Files that cannot be read are left to those who need them."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return (tensors.metadata() or {}).get("z1g") == METADATA["z1g"]
    except (OSError, SafetensorError):
        return False


def save_quantized(source: Path, target: Path) -> None:
    """Write the tensors of a file in int8."""
    packed: dict[str, Tensor] = {}
    for name, tensor in load_file(source).items():
        if tensor.is_floating_point() and tensor.ndim > 1 and tensor.numel() >= MINIMUM:
            packed[name], packed[name + SCALE] = quantize(tensor)
        else:
            packed[name] = tensor
    save_file({name: value.contiguous() for name, value in packed.items()}, target, METADATA)


def load_restored(source: Path) -> dict[str, Tensor]:
    """The tensors of a file, those in int8 as float32. Raises UserError if tensors and scales do not fit."""
    tensors, restored = load_file(source), dict[str, Tensor]()
    if not is_quantized(source):
        return tensors
    for name, tensor in tensors.items():
        if name.endswith(SCALE):
            continue
        scale = tensors.get(name + SCALE)
        if scale is not None and (tensor.dtype != torch.int8 or scale.shape != tensor.shape[:1]):
            raise UserError(f"{source}: {name} and its scales do not fit: the file is damaged")
        restored[name] = tensor if scale is None else dequantize(tensor, scale)
    if lost := [name for name in tensors if name.endswith(SCALE) and name.removesuffix(SCALE) not in tensors]:
        raise UserError(f"{source} lacks {json.dumps(lost[0].removesuffix(SCALE))}, whose scales it has")
    return restored
