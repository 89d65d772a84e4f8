"""Discriminators of image patches and of features of a frozen network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

KERNEL = 4
SLOPE = 0.2
WIDEST = 8
"""Most channels of a layer, in multiples of those of the first."""
FIRST_ITERATIONS = 10
"""Power iterations with the initial weights."""


class SpectralConv(nn.Conv2d):
    """A convolution whose weight matrix [C_out,C_in·k·k] is divided by its largest singular value.

    Miyato et al. (ICLR 2018), algorithm 1. The singular vectors are only updated by `iterate`, so that the output does
    not depend on how often the network has run.
    """

    left: Tensor
    right: Tensor

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int = KERNEL) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=1)
        matrix = self.weight.detach().flatten(1)
        self.register_buffer("left", functional.normalize(torch.randn(matrix.shape[0]), dim=0))
        self.register_buffer("right", functional.normalize(torch.randn(matrix.shape[1]), dim=0))
        for _ in range(FIRST_ITERATIONS):
            self.iterate()

    @torch.no_grad()
    def iterate(self) -> None:
        """One power iteration with the current weights."""
        matrix = self.weight.flatten(1)
        self.right.copy_(functional.normalize(matrix.T @ self.left, dim=0))
        self.left.copy_(functional.normalize(matrix @ self.right, dim=0))

    def forward(self, x: Tensor) -> Tensor:
        # A product of elements, since autocast would round a product of matrices to bfloat16.
        value = (self.weight.flatten(1) * torch.outer(self.left, self.right)).sum()
        return functional.conv2d(x, self.weight / value, self.bias, self.stride, self.padding)


class PatchDiscriminator(nn.Module):
    """Images [N,C,H,W] -> one number for each patch [N,1,h,w], high for true ones.

    The convolutions are those of pix2pix (Isola et al. 2017, appendix 6.1.2): three layers see 70 pixels.
    Instead of batch normalization, which lets an output depend on the other images of the batch, the inner layers have
    spectral normalization; the first and the last have none, as in Real-ESRGAN (Wang et al. 2021, section 3.3).
    """

    def __init__(self, inputs: int, channels: int, layers: int) -> None:
        """inputs: channels of an image. channels: of the first layer. layers: those with a stride of 2."""
        super().__init__()
        widths = [channels * min(2**i, WIDEST) for i in range(layers + 1)]
        self.first = nn.Conv2d(inputs, channels, KERNEL, stride=2, padding=1)
        self.inner = nn.ModuleList(
            SpectralConv(widths[i], widths[i + 1], stride=2 if i + 1 < layers else 1) for i in range(layers)
        )
        self.last = nn.Conv2d(widths[-1], 1, KERNEL, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        x = functional.leaky_relu(self.first(images), SLOPE)
        for layer in self.inner:
            x = functional.leaky_relu(layer(x), SLOPE)
        out: Tensor = self.last(x)
        return out

    def iterate(self) -> None:
        """One power iteration of the spectral norms, to be called after each change of the weights."""
        for layer in self.inner:
            layer.iterate()  # type: ignore[operator]


class FeatureDiscriminator(nn.Module):
    """Features [N,C,h,w] of each level of a frozen network -> one number for each pixel of each level, high for true.

    Projected GANs (Sauer et al., NeurIPS 2021, section 3.2) without their random mixing of channels and levels: what
    the frozen network knows of images need not be learned from renders. Features have unit length at each pixel.
    """

    def __init__(self, inputs: Sequence[int], channels: int) -> None:
        """inputs: channels of each level. channels: of the layers."""
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(level, channels, 1),
                nn.LeakyReLU(SLOPE),
                SpectralConv(channels, channels, stride=1, kernel=3),
                nn.LeakyReLU(SLOPE),
                nn.Conv2d(channels, 1, 3, padding=1),
            )
            for level in inputs
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        # With a mean square of one for each channel, whatever the number of channels.
        scaled = [x * x.shape[1] ** 0.5 for x in features]
        return [level(x) for level, x in zip(self.levels, scaled, strict=True)]

    def iterate(self) -> None:
        """One power iteration of the spectral norms, to be called after each change of the weights."""
        for layer in self.modules():
            if isinstance(layer, SpectralConv):
                layer.iterate()
