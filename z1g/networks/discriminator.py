"""A discriminator of image patches."""

from __future__ import annotations

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

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, KERNEL, stride, padding=1)
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
