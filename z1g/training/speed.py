"""What makes the same training faster or smaller: compilation, fewer products, activations computed twice."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch._dynamo
import torch.nn.functional as functional
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from z1g.networks.half import call_with
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
                part.forward = partial(_recomputed, _Body(part, part.forward))  # type: ignore[method-assign]
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


class _Body(nn.Module):
    """A part with the forward pass that it had."""

    def __init__(self, part: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.part, self.forward = part, forward


def _recomputed(body: _Body, *args: Any, **kwargs: Any) -> Any:
    """Its result; the backward pass comes to it once more with the weights of now, which may be another type's."""
    run = partial(call_with, body, dict(body.named_parameters()))
    return checkpoint(run, *args, use_reentrant=False, **kwargs)


def _enlarged(layer: nn.Conv2d, x: Tensor, output_size: tuple[int, int] | None = None) -> Tensor:
    """`layer`, a 3×3 convolution, of `x` enlarged twofold by repetition.

    A pixel of the result sees 2×2 pixels of `x`: a convolution for each of the four places it may have among them.
    """
    height, width = x.shape[2:]
    if output_size is not None and tuple(output_size) != (2 * height, 2 * width):
        result: Tensor = layer(functional.interpolate(x, size=output_size, mode="nearest"))
        return result
    kernels = [kernel for rows in _halves(layer.weight, 2) for kernel in _halves(rows, 3)]
    bias = None if layer.bias is None else layer.bias.repeat_interleave(4)
    four = functional.conv2d(x, torch.stack(kernels, dim=1).flatten(0, 1), bias, padding=1).unflatten(1, (-1, 4))
    places = [four[:, :, 2 * i + j, i : i + height, j : j + width] for i in (0, 1) for j in (0, 1)]
    result = functional.pixel_shuffle(torch.stack(places, dim=2).flatten(1, 2), 2)
    last = x.is_contiguous(memory_format=torch.channels_last)
    return result.contiguous(memory_format=torch.channels_last) if last else result


def _halves(kernel: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Three taps on repeated pixels as two on the pixels themselves: where the first is half seen, and the last."""
    a, b, c = kernel.unbind(dim)
    return torch.stack([a, b + c], dim), torch.stack([a + b, c], dim)
