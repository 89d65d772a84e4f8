"""Self-attention with heads too wide for fused kernels, as in the VAE's middle blocks with one head of 512 channels."""

from functools import partial

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

WIDE = 256
"""Largest number of channels of a head for which fused kernels exist."""
SCORES = 2**26
"""Largest number of attention scores of an object in memory."""
KEPT = 2**27
"""Largest number of attention scores of an object that are kept for the backward pass; more are computed again."""


class WideAttention:
    """Attention processor of images [B,C,H,W] with one head, without masks."""

    def __call__(self, attn: Attention, hidden_states: Tensor, temb: Tensor | None = None, **_: object) -> Tensor:
        """[B,C,H,W] -> [B,C,H,W], plus the residual. A VAE has no `temb`, but diffusers warns without the parameter."""
        x = attn.group_norm(hidden_states).flatten(2).transpose(1, 2)
        x = attn.to_out[0](attend(attn.to_q(x), attn.to_k(x), attn.to_v(x)))
        added = x.transpose(1, 2).reshape(hidden_states.shape) + hidden_states
        result: Tensor = added / attn.rescale_output_factor
        return result


def attend(q: Tensor, k: Tensor, v: Tensor, scores: int = SCORES, kept: int = KEPT) -> Tensor:
    """softmax(q·kᵀ/√D)·v of [B,N,D], by blocks of queries; the backward pass recomputes more scores than `kept`."""
    q = q * q.shape[-1] ** -0.5
    rows = max(1, scores // k.shape[1])
    run = _block if q.shape[1] * k.shape[1] <= kept else partial(checkpoint, _block, use_reentrant=False)
    return torch.cat([run(part, k, v) for part in q.split(rows, dim=1)], dim=1)


def _block(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(1, 2)).softmax(dim=-1) @ v


def install(network: nn.Module) -> None:
    """Set this processor for the network's wide self-attentions; other layers do not change."""
    for part in network.modules():
        if isinstance(part, Attention) and part.heads == 1 and part.inner_dim > WIDE and part.group_norm is not None:
            part.set_processor(WideAttention())
