"""Fused forward passes of diffusers layers. The names of weights do not change.

Images are in channels_last format, which a GPU's convolutions require: with another format they convert inputs and
outputs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as functional
from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from z1g.networks.fused import available
from z1g.networks.fused.operations import add_bias, channels_last, geglu, group_norm
from z1g.networks.fused.rotary import rotate
from z1g.networks.multiview.rotary import Rotary

MAX_INDEXED = 2**31
"""Number of values of an enlarged image from which the unfused `Upsample2D` is used."""


def fuse_where_possible(network: nn.Module, device: torch.device) -> None:
    """Apply `fuse` if the kernels can run on the device."""
    if available(device):
        fuse(network)


def fuse(network: nn.Module) -> None:
    """Replace the forward passes of the network's layers by fused ones, in place. Call after the last change of layers.

    Inputs that are not on a GPU use the original forward passes.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for part in network.modules():
        run = _fused(part)
        if run is not None:
            part.forward = partial(_chosen, run, part.forward)  # type: ignore[method-assign]
        if isinstance(part, Transformer2DModel):
            part._get_output_for_continuous_inputs = partial(_leave_tokens, part)  # type: ignore[method-assign]


def to_contiguous(network: nn.Module) -> None:
    """Convert weights to contiguous format, which safetensors requires, in place."""
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def runs_fused(x: Tensor) -> bool:
    """Whether the kernels can process this tensor."""
    return x.is_cuda


def _chosen(fused: Callable[..., Tensor], plain: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return (fused if runs_fused(x) else plain)(x, *args, **kwargs)


def _fused(part: nn.Module) -> Callable[..., Tensor] | None:
    if "forward" in vars(part):
        # Already replaced: networks are moved to a device and wrapped by methods more than once.
        return None
    if isinstance(part, ResnetBlock2D) and _usual(part):
        return partial(_residual, part)
    if isinstance(part, Upsample2D) and part.name == "conv" and part.norm is None and _plain(part.conv):
        return partial(_enlarged, part, part.forward)
    if type(part) is nn.GroupNorm and part.affine:
        return partial(_norm, part)
    if type(part) is GEGLU:
        return partial(_gated, part)
    if type(part) is Rotary:
        return partial(_rotated, part)
    return None


def _usual(block: ResnetBlock2D) -> bool:
    """Whether the block has the standard structure and plain layers."""
    shortcut = block.conv_shortcut is None or _plain(block.conv_shortcut)
    plain = _plain(block.conv1) and _plain(block.conv2) and shortcut and isinstance(block.nonlinearity, nn.SiLU)
    varied = block.upsample is not None or block.downsample is not None or block.output_scale_factor != 1
    # Blocks of a VAE's decoder have no time embedding, and "group" as its type.
    timed = block.time_embedding_norm == "default" or block.time_emb_proj is None
    return plain and timed and not varied


def _plain(layer: object) -> bool:
    """Whether the layer is a plain convolution with bias; layers with adapters are of other classes."""
    return type(layer) is nn.Conv2d and layer.bias is not None and layer.padding_mode == "zeros"


def _residual(block: ResnetBlock2D, x: Tensor, temb: Tensor | None = None, *_: object, **__: object) -> Tensor:
    """See `ResnetBlock2D.forward`."""
    x = channels_last(x)
    hidden = _convolved(block.conv1, _normalized(block.norm1, x, silu=True))
    shift = block.conv1.bias[None]
    if block.time_emb_proj is not None and temb is not None:
        shift = shift + block.time_emb_proj(temb if block.skip_time_act else functional.silu(temb))
    hidden = _normalized(block.norm2, hidden, silu=True, shift=shift)
    hidden, bias = _convolved(block.conv2, block.dropout(hidden)), block.conv2.bias
    if block.conv_shortcut is not None:
        x, bias = _convolved(block.conv_shortcut, x), bias + block.conv_shortcut.bias
    return add_bias(hidden, bias, x)


def _enlarged(
    part: Upsample2D, forward: Callable[..., Tensor], x: Tensor, output_size: object = None, *_: object, **__: object
) -> Tensor:
    """See `Upsample2D.forward`."""
    if output_size is not None or 4 * x.numel() >= MAX_INDEXED:
        return forward(x, output_size)
    return add_bias(_convolved(part.conv, functional.interpolate(channels_last(x), scale_factor=2.0)), part.conv.bias)


def _norm(part: nn.GroupNorm, x: Tensor) -> Tensor:
    if x.ndim != 4:
        return functional.group_norm(x, part.num_groups, part.weight, part.bias, part.eps)
    return _normalized(part, x, silu=False)


def _normalized(part: nn.GroupNorm, x: Tensor, *, silu: bool, shift: Tensor | None = None) -> Tensor:
    return group_norm(x, part.weight, part.bias, part.num_groups, part.eps, silu, shift)


def _gated(part: GEGLU, x: Tensor, *_: object, **__: object) -> Tensor:
    return geglu(part.proj(x))


def _rotated(part: Rotary, x: Tensor) -> Tensor:
    return rotate(x, *part.angles(x))


def _leave_tokens(
    part: Transformer2DModel, hidden_states: Tensor, residual: Tensor, batch_size: int, height: int, width: int,
    inner_dim: int,
) -> Tensor:  # fmt: skip
    """See `Transformer2DModel`: tokens [B,N,C] to an image, plus the residual."""
    if part.use_linear_projection:
        hidden_states = part.proj_out(hidden_states)
    image = hidden_states.reshape(batch_size, height, width, inner_dim).permute(0, 3, 1, 2)
    if not part.use_linear_projection:
        image = part.proj_out(image)
    return image + residual


def _convolved(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution without its bias."""
    return functional.conv2d(x, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
