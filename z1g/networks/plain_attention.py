"""The attention of Stable Diffusion's layers, without what diffusers' processor does for layers of other models."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

from z1g.networks.attention_kernels import attention
from z1g.networks.projections import projected


class PlainAttention(AttnProcessor2_0):
    """`AttnProcessor2_0` that does not divide its result by 1, which costs training a pass over memory each way."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        appended: Tensor | None = None,
        package: str = "",
    ) -> Tensor:
        """[B,N,C] -> [B,N,C]. appended, package: see `attended`."""
        if attention_mask is None and is_plain(attn) and hidden_states.ndim == 3:
            return attended(attn, hidden_states, encoder_hidden_states, appended=appended, package=package)
        if appended is not None:
            encoder_hidden_states = torch.cat([hidden_states, appended], dim=1)
        result: Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)
        return result


def is_plain(attn: Attention) -> bool:
    """Whether the layer is one of Stable Diffusion: products, softmax and a last layer."""
    norms = (attn.spatial_norm, attn.group_norm, attn.norm_q, attn.norm_k)
    others = attn.norm_cross or attn.residual_connection or attn.rescale_output_factor != 1
    return not others and all(norm is None for norm in norms)


def attended(
    attn: Attention,
    tokens: Tensor,
    context: Tensor | None = None,
    turn: Callable[[Tensor], Tensor] | None = None,
    appended: Tensor | None = None,
    package: str = "",
) -> Tensor:
    """Tokens [B,N,C] that attended to those of the context [B,M,D], or to each other, and the last layer.

    turn: applied to queries and keys [B,N,heads,C/heads]. appended: without a context, more tokens [B,A,C] that are
    attended to. package: whose kernels compute it, see `attention_kernels.attention`.
    """
    query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in projected(attn, tokens, context, appended))
    if turn is not None:
        query, key = turn(query), turn(key)
    mixed = attention(query, key, value, package).flatten(2)
    result: Tensor = attn.to_out[1](attn.to_out[0](mixed))
    return result
