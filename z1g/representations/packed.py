"""Folders of trained methods with weights in int8, a quarter of their size, for models that travel.

Each matrix or kernel has one scale per output channel (symmetric quantization, the largest magnitude is 127), as in
Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference" (2018), section 3.1. Vectors and small
tensors keep float32.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from z1g.core.errors import UserError
from z1g.representations import folder as method_folder

SUFFIX = ".safetensors"
Convert = Callable[[Path, Path], object]
"""Writes the tensors of the first file to the second one."""
METADATA = {"z1g": "int8, one scale per output channel"}
SCALE = ".int8_scale"
"""End of the name of a quantized tensor's scales, float32 [O]."""
MINIMUM = 2048
"""Tensors with fewer values are stored as they are."""


def quantize(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values [O,...] and scales [O] of a tensor [O,...], with an error of at most half a scale."""
    rows = tensor.detach().float().flatten(1)
    # A row of zeros has any scale.
    scale = (rows.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    return (rows / scale[:, None]).round().to(torch.int8).view(tensor.shape), scale


def dequantize(values: Tensor, scale: Tensor) -> Tensor:
    """Inverse of `quantize`, float32 [O,...]."""
    return values.float() * scale.view(-1, *[1] * (values.ndim - 1))


def pack(folder: Path, out: Path) -> None:
    """Write the folder of a trained method with quantized weights to `out`, which must not exist."""
    setup = method_folder.read(folder)
    _copy(folder, out, _quantized)
    method_folder.write(out, *setup)


def unpack(folder: Path, out: Path) -> None:
    """Inverse of `pack`, up to rounding: the folder with float32 weights. Raises UserError if a file is damaged."""
    setup = method_folder.read(folder)
    _copy(folder, out, _restored)
    method_folder.write(out, *setup)


def copy(folder: Path, out: Path) -> None:
    """Write the same folder with its weights as they are."""
    setup = method_folder.read(folder)
    _copy(folder, out, shutil.copyfile)
    method_folder.write(out, *setup)


def is_packed(folder: Path) -> bool:
    """Whether a folder's weights are quantized. Files that cannot be read are left to those who need them."""
    return any(_is_quantized(file) for file in sorted(folder.rglob(f"*{SUFFIX}")))


def _is_quantized(file: Path) -> bool:
    try:
        with safe_open(file, framework="pt") as tensors:
            return (tensors.metadata() or {}).get("z1g") == METADATA["z1g"]
    except (OSError, SafetensorError):
        return False


def _copy(folder: Path, out: Path, convert: Convert) -> None:
    """Copy a folder's files; those with weights are converted."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        target = out / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == SUFFIX:
            convert(file, target)
        elif file.name != method_folder.FILE and file.suffix == ".json":
            shutil.copyfile(file, target)


def _quantized(source: Path, target: Path) -> None:
    packed: dict[str, Tensor] = {}
    for name, tensor in load_file(source).items():
        if tensor.is_floating_point() and tensor.ndim > 1 and tensor.numel() >= MINIMUM:
            packed[name], packed[name + SCALE] = quantize(tensor)
        else:
            packed[name] = tensor
    save_file({name: value.contiguous() for name, value in packed.items()}, target, METADATA)


def _restored(source: Path, target: Path) -> None:
    tensors, restored = load_file(source), dict[str, Tensor]()
    for name, tensor in tensors.items():
        if name.endswith(SCALE):
            continue
        scale = tensors.get(name + SCALE)
        if scale is not None and (tensor.dtype != torch.int8 or scale.shape != tensor.shape[:1]):
            raise UserError(f"{source}: {name} and its scales do not fit: the file is damaged")
        restored[name] = tensor if scale is None else dequantize(tensor, scale)
    if lost := [name for name in tensors if name.endswith(SCALE) and name.removesuffix(SCALE) not in tensors]:
        raise UserError(f"{source} lacks {json.dumps(lost[0].removesuffix(SCALE))}, whose scales it has")
    save_file({name: value.contiguous() for name, value in restored.items()}, target, {"format": "pt"})
