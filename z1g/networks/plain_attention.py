"""The attention of Stable Diffusion's layers, without what diffusers' processor does for layers of other models."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as functional
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor


class PlainAttention(AttnProcessor2_0):
    """`AttnProcessor2_0` that does not divide its result by 1, which costs training a pass over memory each way."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """[B,N,C] -> [B,N,C]."""
        if attention_mask is None and is_plain(attn) and hidden_states.ndim == 3:
            return attended(attn, hidden_states, encoder_hidden_states)
        result: Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)
        return result


def is_plain(attn: Attention) -> bool:
    """Whether the layer is one of Stable Diffusion: products, softmax and a last layer."""
    norms = (attn.spatial_norm, attn.group_norm, attn.norm_q, attn.norm_k)
    others = attn.norm_cross or attn.residual_connection or attn.rescale_output_factor != 1
    return not others and all(norm is None for norm in norms)


def attended(
    attn: Attention, tokens: Tensor, context: Tensor | None = None, turn: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Tokens [B,N,C] that attended to those of the context [B,M,D], or to each other, and the last layer.

    turn: applied to queries and keys [B,N,heads,C/heads].
    """
    other = tokens if context is None else context
    query, key, value = (
        layer(x).unflatten(2, (attn.heads, -1))
        for layer, x in ((attn.to_q, tokens), (attn.to_k, other), (attn.to_v, other))
    )
    if turn is not None:
        query, key = turn(query), turn(key)
    heads = (x.transpose(1, 2) for x in (query, key, value))
    mixed = functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    result: Tensor = attn.to_out[1](attn.to_out[0](mixed))
    return result
