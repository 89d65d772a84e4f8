"""Fused forward passes of diffusers layers. The names of weights do not change.

Images are in channels_last format, which a GPU's convolutions require: with another format they convert inputs and
outputs.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as functional
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from z1g.networks.fused import available
from z1g.networks.fused.operations import add_bias, doubled, group_norm, kept_group_norm
from z1g.networks.fused.tokens import added_norm, geglu, linear, rotate
from z1g.networks.multiview.attributes import AttributeBlock
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
    if type(part) is Transformer2DModel and part.is_input_continuous and type(part.norm) is nn.GroupNorm:
        return partial(_transformer, part, part.forward)
    if type(part) is BasicTransformerBlock and _standard(part):
        return partial(_block, part)
    if type(part) is AttributeBlock:
        return partial(_attribute_block, part)
    if type(part) is nn.Linear and part.bias is not None:
        return partial(_linear, part)
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


def _standard(block: BasicTransformerBlock) -> bool:
    """Whether the block is as in Stable Diffusion: two attentions and a feed-forward layer, each after a norm."""
    attends = block.attn2 is not None and not block.only_cross_attention
    plain = block.pos_embed is None and block._chunk_size is None and not hasattr(block, "fuser")
    norms = (block.norm1, block.norm2, block.norm3)
    return attends and plain and block.norm_type == "layer_norm" and all(_affine(norm) for norm in norms)


def _affine(norm: object) -> bool:
    return type(norm) is nn.LayerNorm and norm.weight is not None and norm.bias is not None


def _plain(layer: object) -> bool:
    """Whether the layer is a plain convolution with bias; layers with adapters are of other classes."""
    return type(layer) is nn.Conv2d and layer.bias is not None and layer.padding_mode == "zeros"


def _residual(block: ResnetBlock2D, x: Tensor, temb: Tensor | None = None, *_: object, **__: object) -> Tensor:
    """See `ResnetBlock2D.forward`."""
    norm = block.norm1
    x, hidden = kept_group_norm(x, norm.weight, norm.bias, norm.num_groups, norm.eps, silu=True)
    hidden = _convolved(block.conv1, hidden)
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
    return add_bias(_convolved(part.conv, doubled(x)), part.conv.bias)


def _norm(part: nn.GroupNorm, x: Tensor) -> Tensor:
    if x.ndim != 4:
        return functional.group_norm(x, part.num_groups, part.weight, part.bias, part.eps)
    return _normalized(part, x, silu=False)


def _normalized(part: nn.GroupNorm, x: Tensor, *, silu: bool, shift: Tensor | None = None) -> Tensor:
    return group_norm(x, part.weight, part.bias, part.num_groups, part.eps, silu, shift)


def _block(
    block: BasicTransformerBlock,
    x: Tensor,
    attention_mask: Tensor | None = None,
    encoder_hidden_states: Tensor | None = None,
    encoder_attention_mask: Tensor | None = None,
    timestep: object = None,
    cross_attention_kwargs: dict[str, Any] | None = None,
    *_: object,
    **__: object,
) -> Tensor:
    """See `BasicTransformerBlock.forward`."""
    options = cross_attention_kwargs or {}
    cross = {"encoder_hidden_states": encoder_hidden_states, "attention_mask": encoder_attention_mask, **options}
    return _summed(
        x,
        [
            (block.norm1, partial(block.attn1, attention_mask=attention_mask, **options)),
            (block.norm2, partial(block.attn2, **cross)),
            (block.norm3, block.ff),
        ],
    )


def _attribute_block(
    block: AttributeBlock,
    x: Tensor,
    attention_mask: object = None,
    encoder_hidden_states: Tensor | None = None,
    encoder_attention_mask: object = None,
    timestep: object = None,
    cross_attention_kwargs: dict[str, Any] | None = None,
    *_: object,
    **__: object,
) -> Tensor:
    """See `AttributeBlock.forward`."""
    return _summed(x, block.branches(encoder_hidden_states, cross_attention_kwargs))


def _summed(x: Tensor, branches: Iterable[tuple[nn.LayerNorm, Callable[[Tensor], Tensor]]]) -> Tensor:
    """x plus what each branch, a norm and a layer, makes of the sum so far."""
    added: Tensor | None = None
    for norm, layer in branches:
        x, normalized = added_norm(x, added, norm.weight, norm.bias, norm.eps)
        added = layer(normalized)
    return x if added is None else x + added


def _linear(part: nn.Linear, x: Tensor) -> Tensor:
    # Autocast, which casts, is left to torch, and so are the few rows of a vector.
    if x.ndim != 3 or torch.is_autocast_enabled(x.device.type):
        return functional.linear(x, part.weight, part.bias)
    return linear(x, part.weight, part.bias)


def _gated(part: GEGLU, x: Tensor, *_: object, **__: object) -> Tensor:
    if type(part.proj) is nn.Linear:
        return geglu(functional.linear(x, part.proj.weight), part.proj.bias)
    return geglu(part.proj(x))


def _rotated(part: Rotary, x: Tensor) -> Tensor:
    return rotate(x, *part.angles(x))


def _transformer(
    part: Transformer2DModel,
    forward: Callable[..., Any],
    x: Tensor,
    encoder_hidden_states: Tensor | None = None,
    timestep: object = None,
    added_cond_kwargs: object = None,
    class_labels: object = None,
    cross_attention_kwargs: dict[str, Any] | None = None,
    attention_mask: Tensor | None = None,
    encoder_attention_mask: Tensor | None = None,
    return_dict: bool = True,
) -> Any:
    """See `Transformer2DModel.forward`: its residual's gradient is added where that of its norm is computed."""
    if attention_mask is not None or encoder_attention_mask is not None or return_dict:
        return forward(
            x, encoder_hidden_states, timestep, added_cond_kwargs, class_labels, cross_attention_kwargs,
            attention_mask, encoder_attention_mask, return_dict,
        )  # fmt: skip
    norm, recomputed = part.norm, part.gradient_checkpointing and torch.is_grad_enabled()
    x, normalized = kept_group_norm(x, norm.weight, norm.bias, norm.num_groups, norm.eps, silu=False)
    image = normalized if part.use_linear_projection else part.proj_in(normalized)
    tokens = image.permute(0, 2, 3, 1).flatten(1, 2)
    if part.use_linear_projection:
        tokens = part.proj_in(tokens)
    for block in part.transformer_blocks:
        run = partial(part._gradient_checkpointing_func, block) if recomputed else block
        tokens = run(tokens, None, encoder_hidden_states, None, None, cross_attention_kwargs)
    if part.use_linear_projection:
        tokens = part.proj_out(tokens)
    image = tokens.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
    return ((image if part.use_linear_projection else part.proj_out(image)) + x,)


def _convolved(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution without its bias."""
    return functional.conv2d(x, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
