"""What makes the same training faster or smaller: compilation, fewer products, activations computed twice."""

from collections.abc import Iterable
from functools import partial

import torch
import torch._dynamo
import torch.nn.functional as functional
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from z1g.training.options import SpeedOptions

REPEATED = (ResnetBlock2D, Upsample2D, FeedForward)
"""Blocks that repeat in the networks: compiled one by one, kernels of one serve all of a shape."""
KINDS = 512
"""How many shapes of a block may be compiled; torch gives up at 8."""


def tune(networks: Iterable[nn.Module], options: SpeedOptions) -> None:
    """Apply the options to networks in place; names of weights stay as they are. Call before there is an optimiser."""
    for network in networks:
        for part in network.modules():
            if options.fold_upsampling and isinstance(part, Upsample2D) and part.name == "conv":
                part.forward = partial(_enlarged, part.conv)  # type: ignore[method-assign]
            if options.recompute and isinstance(part, ResnetBlock2D):
                part.forward = partial(checkpoint, part.forward, use_reentrant=False)  # type: ignore[method-assign]
        if options.compile != "off":
            _compile(network, options.compile)


def _compile(network: nn.Module, mode: str) -> None:
    """Compile the network's repeated blocks, or the whole of one without such.

    Pictures lie in memory pixel by pixel, as convolutions want them; what compilation makes of norms allows it.
    """
    torch._dynamo.config.recompile_limit = KINDS
    torch._dynamo.config.accumulated_recompile_limit = 4 * KINDS
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for part in [part for part in network.modules() if isinstance(part, REPEATED)] or [network]:
        part.compile(mode=mode, dynamic=False)


def _enlarged(layer: nn.Conv2d, x: Tensor, output_size: tuple[int, int] | None = None) -> Tensor:
    """`layer`, a 3×3 convolution, of `x` enlarged twofold by repetition.

    Repetition is a transposed convolution with a kernel of 2×2 ones, so both are one with their kernels' product, 4×4.
    """
    if output_size is not None and tuple(output_size) != (2 * x.shape[2], 2 * x.shape[3]):
        result: Tensor = layer(functional.interpolate(x, size=output_size, mode="nearest"))
        return result
    kernel = layer.weight.flip(2, 3)
    kernel = functional.pad(kernel, (0, 1, 0, 0)) + functional.pad(kernel, (1, 0, 0, 0))
    kernel = functional.pad(kernel, (0, 0, 0, 1)) + functional.pad(kernel, (0, 0, 1, 0))
    return functional.conv_transpose2d(x, kernel.transpose(0, 1), layer.bias, stride=2, padding=1)
