"""The distance of LPIPS and ST-LPIPS with fused operations, in bfloat16."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from z1g.networks.fused.operations import bias_relu, unit_distance


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
    x = network.scaling_layer(images).to(torch.bfloat16)
    for i in range(1, network.L + 1):
        layers = list(getattr(network.net, f"slice{i}"))
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, nn.Conv2d) and layers and isinstance(layers[0], nn.ReLU):
                layers.pop(0)
                x = _convolved_relu(layer, x)
            else:
                x = layer(x)
        yield x


def _convolved_relu(layer: nn.Conv2d, x: Tensor) -> Tensor:
    weight = layer.weight.to(torch.bfloat16, memory_format=torch.channels_last)
    assert layer.bias is not None
    convolved = functional.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return bias_relu(convolved, layer.bias)
