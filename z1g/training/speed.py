"""What makes the same training faster or smaller: fused kernels, fewer products, activations computed twice."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as functional
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
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
            if options.fold_upsampling and isinstance(part, Upsample2D) and part.name == "conv":
                part.forward = partial(_enlarged, part.conv)  # type: ignore[method-assign]
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
