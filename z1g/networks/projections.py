"""Queries, keys and values of tokens, whose gradients are added by the products that compute them."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def projected(attn: Attention, tokens: Tensor, context: Tensor | None, appended: Tensor | None) -> list[Tensor]:
    """Queries [B,N,C], and keys and values [B,M,C], of tokens [B,N,C] that attend to `context` [B,M,D], or if it is
    None to each other and to those `appended` [B,A,C].
    """
    layers = [attn.to_q, attn.to_k, attn.to_v]
    if context is None and _adds(tokens, layers):
        results: tuple[Tensor, ...] = _Projected.apply(tokens, appended, *(layer.weight for layer in layers))
        return list(results)
    if context is None:
        context = tokens if appended is None else torch.cat([tokens, appended], dim=1)
    return [layer(x) for layer, x in zip(layers, (tokens, context, context), strict=True)]


def _adds(tokens: Tensor, layers: list[nn.Module]) -> bool:
    """Whether training on a GPU gains by `_Projected`: plain layers of the tokens' type, without autocast."""
    plain = all(type(layer) is nn.Linear and layer.bias is None for layer in layers)
    trains = tokens.is_cuda and torch.is_grad_enabled() and not torch.is_autocast_enabled("cuda")
    return plain and trains and all(layer.weight.dtype == tokens.dtype for layer in layers)


class _Projected(Function):
    """Autograd would add the gradients of queries, keys and values in passes over memory of their own, and cut those of
    the appended tokens out. A product that adds to what is there reads it once more, and that is all.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, appended: Tensor | None, query: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        context = tokens if appended is None else torch.cat([tokens, appended], dim=1)
        ctx.save_for_backward(tokens, context, query, key, value)
        return tokens @ query.T, context @ key.T, context @ value.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor) -> tuple[Tensor | None, ...]:
        tokens, context, query, key, value = ctx.saved_tensors
        of_tokens, of_appended, *of_weights = ctx.needs_input_grad
        n = tokens.shape[1]
        slopes: list[Tensor | None] = [None, None]
        if of_tokens:
            slopes[0] = _added(dq @ query, (dk[:, :n], key), (dv[:, :n], value))
        if of_appended:
            slopes[1] = _added(_batched(dk[:, n:], key), (dv[:, n:], value))
        pairs = ((dq, tokens), (dk, context), (dv, context))
        weights = [
            slope.flatten(0, 1).T @ x.flatten(0, 1) if wanted else None
            for (slope, x), wanted in zip(pairs, of_weights, strict=True)
        ]
        return (*slopes, *weights)


def _added(total: Tensor, *products: tuple[Tensor, Tensor]) -> Tensor:
    """total [B,N,C] plus products of slopes [B,N,D] and a weight [D,C], in place."""
    for slope, weight in products:
        total.baddbmm_(slope, weight.expand(len(slope), -1, -1))
    return total


def _batched(slope: Tensor, weight: Tensor) -> Tensor:
    """The product of slopes [B,N,D], of which rows may be left out in memory, and a weight [D,C], without a copy."""
    return torch.bmm(slope, weight.expand(len(slope), -1, -1))
