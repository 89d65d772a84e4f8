"""Downsampling of raw splat channels [B,14,H,W] to the splats' resolution. Learned layers start as averages."""

import torch
from torch import Tensor, nn

from z1g.gaussians.channels import N_CHANNELS


def average(size: tuple[int, int]) -> nn.Module:
    """Average pooling."""
    return nn.AdaptiveAvgPool2d(size)


def strided(size: tuple[int, int]) -> nn.Module:
    """3×3 convolution of stride 2, then average pooling."""
    convolution = nn.Conv2d(N_CHANNELS, N_CHANNELS, 3, stride=2, padding=1)
    with torch.no_grad():
        # Each channel starts as its mean over 2×2 pixels, so that stride 2 skips no pixel.
        convolution.weight.zero_()
        for channel in range(N_CHANNELS):
            convolution.weight[channel, channel, 1:, 1:] = 0.25
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # the bias exists
    return nn.Sequential(convolution, average(size))


class Downsample(nn.Module):
    """Average pooling plus a residual of two convolutions."""

    def __init__(self, size: tuple[int, int], width: int, activation: bool) -> None:
        super().__init__()
        self.average = average(size)
        last = nn.Conv2d(width, N_CHANNELS, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]  # the bias exists
        first = nn.Conv2d(N_CHANNELS, width, 3, stride=2, padding=1)
        self.change = nn.Sequential(first, nn.SiLU() if activation else nn.Identity(), last)

    def forward(self, raw: Tensor) -> Tensor:
        """[B,14,H,W] -> [B,14,*size]."""
        result: Tensor = self.average(raw) + self.average(self.change(raw))
        return result
