"""The distance of LPIPS and ST-LPIPS with fused operations, in bfloat16."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from z1g.networks.fused.features import first_layer, relu_pooled, unit_distance
from z1g.networks.fused.operations import bias_relu


def distance(network: Any, prediction: Tensor, truth: Tensor) -> Tensor:
    """Distance [B] of images [B,3,H,W] in -1..1, as by the package's network in evaluation mode.

    Gradients reach the prediction only. network: `lpips.LPIPS` or `stlpips_pytorch.LPIPS`, which have slices of a trunk
    and a linear layer for each slice.
    """
    heads = [getattr(network, f"lin{i}").model[-1].weight.flatten() for i in range(network.L)]
    with torch.autocast(prediction.device.type, torch.bfloat16):
        with torch.no_grad():
            expected = list(_features(network, truth))
        predicted = _features(network, prediction)
        parts = [unit_distance(a, b, head) for a, b, head in zip(predicted, expected, heads, strict=True)]
    return torch.stack(parts).sum(0)


def _features(network: Any, images: Tensor) -> Iterator[Tensor]:
    """Features of images after each slice of the trunk."""
    slices = [list(getattr(network.net, f"slice{i}")) for i in range(1, network.L + 1)]
    x = _begun(network.scaling_layer, images, slices[0])
    for layers, following in zip(slices, [*slices[1:], []], strict=True):
        pooled: Tensor | None = None
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, nn.Conv2d) and layers and isinstance(layers[0], nn.ReLU):
                layers.pop(0)
                convolved, bias = _convolved(layer, x)
                if not layers and following and _halves(following[0], convolved):
                    del following[0]
                    x, pooled = relu_pooled(convolved, bias)
                else:
                    x = bias_relu(convolved, bias)
            else:
                x = layer(x)
        yield x
        x = x if pooled is None else pooled


def _begun(scaling: Any, images: Tensor, layers: list[nn.Module]) -> Tensor:
    """Scaled images, or their features after the first convolution, which is then removed from the layers."""
    first = layers[0]
    if not (isinstance(first, nn.Conv2d) and isinstance(layers[1], nn.ReLU) and _small(first)):
        # The first convolution's result then has the memory order of all others.
        scaled: Tensor = scaling(images).to(torch.bfloat16, memory_format=torch.channels_last)
        return scaled
    del layers[:2]
    assert first.bias is not None
    return first_layer(images, scaling.shift.flatten(), scaling.scale.flatten(), first.weight.bfloat16(), first.bias)


def _small(layer: nn.Conv2d) -> bool:
    """Whether a convolution is of all 3×3 pixels around each of three planes, as VGG's first one."""
    sizes = (layer.in_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return sizes == (3, (3, 3), (1, 1), (1, 1), (1, 1)) and layer.out_channels <= 64


def _halves(layer: nn.Module, x: Tensor) -> bool:
    """Whether a layer takes the largest values of windows of 2×2 pixels, into which these features fit."""
    if not isinstance(layer, nn.MaxPool2d) or layer.ceil_mode or layer.return_indices:
        return False
    sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return sizes == (2, 2, 0, 1) and x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0


def _convolved(layer: nn.Conv2d, x: Tensor) -> tuple[Tensor, Tensor]:
    """The convolution without its bias, and the bias."""
    assert layer.bias is not None
    weight = layer.weight.to(torch.bfloat16, memory_format=torch.channels_last)
    convolved = functional.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return convolved, layer.bias
