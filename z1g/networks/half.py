"""A whole network in bfloat16, with weights that stay float32 where they are stored and trained."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def bf16_weights(network: nn.Module, keep: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Its parameters in bfloat16, but those whose names begin like one of `keep`; gradients reach the stored ones."""
    return {name: p.to(torch.bfloat16) for name, p in network.named_parameters() if not name.startswith(keep)}


def call_with(network: nn.Module, weights: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """What the network returns with these weights in place of its own."""
    return functional_call(network, dict(weights), args, kwargs)
