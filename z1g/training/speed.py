"""What makes the same training faster or smaller: fused kernels, activations computed twice."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.utils.checkpoint import checkpoint

from z1g.networks.fused.modules import fuse_where_possible
from z1g.networks.half import call_with
from z1g.training.options import SpeedOptions


def tune(networks: Iterable[nn.Module], options: SpeedOptions, device: torch.device) -> None:
    """Apply the options to networks in place; names of weights stay as they are. Call before there is an optimizer."""
    for network in networks:
        if options.fused:
            fuse_where_possible(network, device)
        for part in network.modules():
            if options.recompute and isinstance(part, ResnetBlock2D):
                part.forward = partial(_recomputed, _Body(part, part.forward))  # type: ignore[method-assign]


class _Body(nn.Module):
    """A part with the forward pass that it had."""

    def __init__(self, part: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.part, self.forward = part, forward


def _recomputed(body: _Body, *args: Any, **kwargs: Any) -> Any:
    """Its result; the backward pass comes to it once more with the weights of now, which may be another type's."""
    run = partial(call_with, body, dict(body.named_parameters()))
    return checkpoint(run, *args, use_reentrant=False, **kwargs)
