"""Reduces the time or memory of training: fused kernels, recomputed activations."""

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
    """Apply the options to networks in place, keeping the names of weights. Call before creating the optimizer."""
    networks = list(networks)
    if options.fused:
        for network in networks:
            fuse_where_possible(network, device)
    if options.recompute:
        recompute(networks)


def recompute(networks: Iterable[nn.Module]) -> None:
    """Let the residual blocks of networks recompute their activations in the backward pass, if they do not yet."""
    for network in networks:
        for layer in network.modules():
            if isinstance(layer, ResnetBlock2D) and not _recomputes(layer):
                layer.forward = partial(_recomputed, _Body(layer, layer.forward))  # type: ignore[method-assign]


def _recomputes(layer: nn.Module) -> bool:
    return isinstance(layer.forward, partial) and layer.forward.func is _recomputed


class _Body(nn.Module):
    """A layer with its original forward pass."""

    def __init__(self, layer: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.layer, self.forward = layer, forward


def _recomputed(body: _Body, *args: Any, **kwargs: Any) -> Any:
    """Output of a layer, recomputed in the backward pass with the current weights, which may be cast to bfloat16."""
    run = partial(call_with, body, dict(body.named_parameters()))
    return checkpoint(run, *args, use_reentrant=False, **kwargs)
