"""Learned layers that bring raw splat channels [B,14,H,W] to the splats' resolution. They begin as plain means."""

import torch
from torch import Tensor, nn

from z1g.gaussians.channels import N_CHANNELS


def average(size: tuple[int, int]) -> nn.Module:
    """Means over areas."""
    return nn.AdaptiveAvgPool2d(size)


def strided(size: tuple[int, int]) -> nn.Module:
    """Convolution 3×3 of stride 2, means over areas."""
    convolution = nn.Conv2d(N_CHANNELS, N_CHANNELS, 3, stride=2, padding=1)
    with torch.no_grad():
        # Each channel its own mean over 2×2 pixels: those that stride 2 would else skip have their say.
        convolution.weight.zero_()
        for channel in range(N_CHANNELS):
            convolution.weight[channel, channel, 1:, 1:] = 0.25
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # it has one
    return nn.Sequential(convolution, average(size))


class Downsample(nn.Module):
    """Means over areas plus what two convolutions add."""

    def __init__(self, size: tuple[int, int], width: int, activation: bool) -> None:
        super().__init__()
        self.average = average(size)
        last = nn.Conv2d(width, N_CHANNELS, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]  # it has one
        first = nn.Conv2d(N_CHANNELS, width, 3, stride=2, padding=1)
        self.change = nn.Sequential(first, nn.SiLU() if activation else nn.Identity(), last)

    def forward(self, raw: Tensor) -> Tensor:
        """[B,14,H,W] -> [B,14,*size]."""
        result: Tensor = self.average(raw) + self.average(self.change(raw))
        return result
