"""What makes the same training faster or smaller: memory layout, compilation, activations computed twice."""

from collections.abc import Iterable
from functools import partial

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.utils.checkpoint import checkpoint

from z1g.training.options import SpeedOptions


def tune(networks: Iterable[nn.Module], options: SpeedOptions) -> None:
    """Apply the options to networks in place; names of weights stay as they are. Call before there is an optimiser."""
    for network in networks:
        if options.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if options.recompute:
            for block in network.modules():
                if isinstance(block, ResnetBlock2D):
                    block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
        if options.compile != "off":
            network.compile(mode=options.compile)
