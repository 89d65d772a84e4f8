"""Self-attention with heads too wide for fused kernels, as in the VAE's middle blocks with one head of 512 channels."""

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

WIDE = 256
"""Largest number of channels of a head for which fused kernels exist."""
SCORES = 2**26
"""Largest number of attention scores of an object in memory."""


class WideAttention:
    """Attention processor of images [B,C,H,W] with one head, without masks."""

    def __call__(self, attn: Attention, hidden_states: Tensor, temb: Tensor | None = None, **_: object) -> Tensor:
        """[B,C,H,W] -> [B,C,H,W], plus the residual. A VAE has no `temb`, but diffusers warns without the parameter."""
        x = attn.group_norm(hidden_states).flatten(2).transpose(1, 2)
        x = attn.to_out[0](attend(attn.to_q(x), attn.to_k(x), attn.to_v(x)))
        added = x.transpose(1, 2).reshape(hidden_states.shape) + hidden_states
        result: Tensor = added / attn.rescale_output_factor
        return result


def attend(q: Tensor, k: Tensor, v: Tensor, scores: int = SCORES) -> Tensor:
    """softmax(q·kᵀ/√D)·v of [B,N,D], by blocks of queries; the backward pass recomputes the scores."""
    q = q * q.shape[-1] ** -0.5
    rows = max(1, scores // k.shape[1])
    blocks = [checkpoint(_block, part, k, v, use_reentrant=False) for part in q.split(rows, dim=1)]
    return torch.cat(blocks, dim=1)


def _block(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(1, 2)).softmax(dim=-1) @ v


def install(network: nn.Module) -> None:
    """Set this processor for the network's wide self-attentions; other layers do not change."""
    for part in network.modules():
        if isinstance(part, Attention) and part.heads == 1 and part.inner_dim > WIDE and part.group_norm is not None:
            part.set_processor(WideAttention())
