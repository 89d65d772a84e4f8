"""Full resolution, then the 14 raw channels shrink. Worse than resized features, as the original's authors note."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from z1g.representations.mosaic.path.base import DecoderPath

if TYPE_CHECKING:
    from torch import nn


class _Downsampled(DecoderPath):
    least: ClassVar[int] = 1
    """How many times as large as the splats the decoder's output has to be."""

    def misfit(self, input_size: int, size: int, levels: int) -> str | None:
        if input_size < self.least * size:
            return (
                f"shrinks {input_size} pixels a view, autodecoder.input_size, which must be at least "
                f"{self.least * size} for splat.size {size}"
            )
        return None


class AveragePool(_Downsampled):
    """Mean over the area of each splat."""

    kind: Literal["average_pool"] = "average_pool"

    def downsampler(self, size: tuple[int, int]) -> nn.Module:
        from z1g.representations.mosaic.downsample import average

        return average(size)


class ConvAveragePool(_Downsampled):
    """A convolution of stride 2, then the mean over the area of each splat."""

    kind: Literal["conv_average_pool"] = "conv_average_pool"
    least: ClassVar[int] = 2

    def downsampler(self, size: tuple[int, int]) -> nn.Module:
        from z1g.representations.mosaic.downsample import strided

        return strided(size)

    @property
    def mixes_channels(self) -> bool:
        return True


class DownsampleConv(_Downsampled):
    """The mean, and what two convolutions, the first of stride 2, add to it."""

    kind: Literal["downsample_conv"] = "downsample_conv"
    least: ClassVar[int] = 2
    width: int = Field(56, ge=1, description="channels between the two convolutions")
    activation: bool = Field(True, description="SiLU between the two convolutions")

    def downsampler(self, size: tuple[int, int]) -> nn.Module:
        from z1g.representations.mosaic.downsample import Downsample

        return Downsample(size, self.width, self.activation)

    @property
    def mixes_channels(self) -> bool:
        return True
