"""Downsampling of the 14 raw channels. Worse than resized features, as the original's authors note."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from z1g.representations.mosaic.path.base import DecoderPath

if TYPE_CHECKING:
    from torch import nn


class _Downsampled(DecoderPath):
    min_ratio: ClassVar[int] = 1
    """Minimum size of the decoder's output, in multiples of the splats' size."""

    def problem(self, input_size: int, size: int, levels: int) -> str | None:
        if input_size < self.min_ratio * size:
            return (
                f"reduces {input_size} pixels per view (representation.input_size), which must be at least "
                f"{self.min_ratio * size} for splat.size {size}"
            )
        return None


class AveragePool(_Downsampled):
    """Average pooling over the area of each splat."""

    kind: Literal["average_pool"] = "average_pool"

    def downsampler(self, size: tuple[int, int]) -> nn.Module:
        from z1g.representations.mosaic.downsample import average

        return average(size)


class ConvAveragePool(_Downsampled):
    """A convolution of stride 2, then average pooling over the area of each splat."""

    kind: Literal["conv_average_pool"] = "conv_average_pool"
    min_ratio: ClassVar[int] = 2

    def downsampler(self, size: tuple[int, int]) -> nn.Module:
        from z1g.representations.mosaic.downsample import strided

        return strided(size)

    @property
    def mixes_channels(self) -> bool:
        return True


class DownsampleConv(_Downsampled):
    """Average pooling plus a residual of two convolutions, the first of stride 2."""

    kind: Literal["downsample_conv"] = "downsample_conv"
    min_ratio: ClassVar[int] = 2
    width: int = Field(56, ge=1, le=65_536, description="channels between the two convolutions")
    activation: bool = Field(True, description="SiLU between the two convolutions")

    def downsampler(self, size: tuple[int, int]) -> nn.Module:
        from z1g.representations.mosaic.downsample import Downsample

        return Downsample(size, self.width, self.activation)

    @property
    def mixes_channels(self) -> bool:
        return True
