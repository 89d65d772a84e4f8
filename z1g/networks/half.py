"""Networks in bfloat16 whose stored and trained weights stay in float32."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.func import functional_call

AT_ONCE = 64
"""Number of weights per cast. DDP reduces their gradients while others are still being computed."""


class _Cast(Function):
    """Cast tensors to bfloat16 and their gradients back, with a few kernels for all of them."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.weights = weights
        half = [torch.empty_like(weight, dtype=torch.bfloat16) for weight in weights]
        torch._foreach_copy_(half, list(weights))
        return tuple(half)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        # Gradients have the memory format of their weights, which the fused optimizer requires.
        full = [None if g is None else torch.empty_like(w) for w, g in zip(ctx.weights, gradients, strict=True)]
        if any(gradient is not None for gradient in gradients):
            torch._foreach_copy_([f for f in full if f is not None], [g for g in gradients if g is not None])
        return tuple(full)


def bf16_weights(network: nn.Module, keep: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Parameters cast to bfloat16, except names with a prefix in `keep`; gradients reach the stored parameters."""
    named = [(name, p) for name, p in network.named_parameters() if not name.startswith(keep)]
    cast: dict[str, Tensor] = {}
    # An autograd function has gradients for all of its inputs or for none.
    for trained in (True, False):
        group = [(name, p) for name, p in named if p.requires_grad == trained]
        for first in range(0, len(group), AT_ONCE):
            names, weights = zip(*group[first : first + AT_ONCE], strict=True)
            cast |= zip(names, _Cast.apply(*weights), strict=True)
    return cast


def call_with(network: nn.Module, weights: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """Call the network with these weights in place of its own."""
    return functional_call(network, dict(weights), args, kwargs)
