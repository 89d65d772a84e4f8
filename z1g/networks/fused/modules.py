"""Layers of diffusers, run by the fused operations. Names of weights stay as they are.

Images then lie in memory pixel by pixel (channels last), as a GPU's convolutions want them: otherwise each of them
is turned before and after.
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
from z1g.networks.fused.operations import add_bias, geglu, group_norm, last

INDEXED = 2**31
"""Values of an image up to which torch enlarges it in place."""


def fuse_where_possible(network: nn.Module, device: torch.device) -> None:
    """`fuse` it, where the kernels run on the device; elsewhere leave it as it is."""
    if available(device):
        fuse(network)


def fuse(network: nn.Module) -> None:
    """Let the network's layers run by fused operations, in place. Call once its layers are what they will be.

    Images that are not on a GPU go the old way.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for part in network.modules():
        run = _fused(part)
        if run is not None:
            part.forward = partial(_chosen, run, part.forward)  # type: ignore[method-assign]
        if isinstance(part, Transformer2DModel):
            part._get_output_for_continuous_inputs = partial(_leave_tokens, part)  # type: ignore[method-assign]


def as_files_want(network: nn.Module) -> None:
    """Its weights in memory as safetensors takes them, in place."""
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def on_kernels(x: Tensor) -> bool:
    """Whether the kernels take it."""
    return x.is_cuda


def _chosen(fused: Callable[..., Tensor], plain: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return (fused if on_kernels(x) else plain)(x, *args, **kwargs)


def _fused(part: nn.Module) -> Callable[..., Tensor] | None:
    if "forward" in vars(part):
        # It runs in another way already: networks are moved, and methods built from them, more than once.
        return None
    if isinstance(part, ResnetBlock2D) and _usual(part):
        return partial(_residual, part)
    if isinstance(part, Upsample2D) and part.name == "conv" and part.norm is None and _plain(part.conv):
        return partial(_enlarged, part, part.forward)
    if type(part) is nn.GroupNorm and part.affine:
        return partial(_norm, part)
    if type(part) is GEGLU:
        return partial(_gated, part)
    return None


def _usual(block: ResnetBlock2D) -> bool:
    """Whether it is a block without variations, with plain layers."""
    shortcut = block.conv_shortcut is None or _plain(block.conv_shortcut)
    plain = _plain(block.conv1) and _plain(block.conv2) and shortcut and isinstance(block.nonlinearity, nn.SiLU)
    varied = block.upsample is not None or block.downsample is not None or block.output_scale_factor != 1
    # A VAE's decoder calls blocks without a time embedding "group".
    timed = block.time_embedding_norm == "default" or block.time_emb_proj is None
    return plain and timed and not varied


def _plain(layer: object) -> bool:
    """A convolution whose weights are all there is to it: adapters' layers are of other classes."""
    return type(layer) is nn.Conv2d and layer.bias is not None and layer.padding_mode == "zeros"


def _residual(block: ResnetBlock2D, x: Tensor, temb: Tensor | None = None, *_: object, **__: object) -> Tensor:
    """See `ResnetBlock2D.forward`."""
    x = last(x)
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
    if output_size is not None or 4 * x.numel() >= INDEXED:
        return forward(x, output_size)
    return add_bias(_convolved(part.conv, functional.interpolate(last(x), scale_factor=2.0)), part.conv.bias)


def _norm(part: nn.GroupNorm, x: Tensor) -> Tensor:
    if x.ndim != 4:
        return functional.group_norm(x, part.num_groups, part.weight, part.bias, part.eps)
    return _normalized(part, x, silu=False)


def _normalized(part: nn.GroupNorm, x: Tensor, *, silu: bool, shift: Tensor | None = None) -> Tensor:
    return group_norm(x, part.weight, part.bias, part.num_groups, part.eps, silu, shift)


def _gated(part: GEGLU, x: Tensor, *_: object, **__: object) -> Tensor:
    return geglu(part.proj(x))


def _leave_tokens(
    part: Transformer2DModel, hidden_states: Tensor, residual: Tensor, batch_size: int, height: int, width: int,
    inner_dim: int,
) -> Tensor:  # fmt: skip
    """See `Transformer2DModel`: tokens [B,N,C] back to an image, the input added."""
    if part.use_linear_projection:
        hidden_states = part.proj_out(hidden_states)
    image = hidden_states.reshape(batch_size, height, width, inner_dim).permute(0, 3, 1, 2)
    if not part.use_linear_projection:
        image = part.proj_out(image)
    return image + residual


def _convolved(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution without its bias."""
    return functional.conv2d(x, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
