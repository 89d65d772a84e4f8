"""Resizing of features inside the decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from z1g.representations.mosaic.path.base import DecoderPath

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import functional
else:
    from z1g.core.lazy import functional


class _Resized(DecoderPath):
    resampling: Literal["nearest", "average"] = Field(
        "nearest", description="resampling of features: nearest neighbor, or the mean over the area (never enlarges)"
    )
    from_the_end: ClassVar[int]
    """Up block to resize after, counted from the last, which is 1."""

    def problem(self, input_size: int, size: int, levels: int) -> str | None:
        if levels < self.from_the_end:
            return f"needs a decoder of {self.from_the_end} levels at least, and the model's has {levels}"
        before = input_size >> (self.from_the_end - 1)
        if self.resampling == "average" and before < size:
            return (
                f"cannot average {before} pixels per view (representation.input_size {input_size}) to splat.size {size}"
            )
        return None

    def resizes_after(self, levels: int) -> int:
        return levels - self.from_the_end

    def resize(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        if tuple(features.shape[-2:]) == size:
            return features
        if self.resampling == "average":
            return functional.adaptive_avg_pool2d(features, size)
        from z1g.networks.fused import available

        if size[0] <= features.shape[-2] and size[1] <= features.shape[-1] and available(features.device):
            from z1g.networks.fused.operations import nearest

            return nearest(features, size)
        return functional.interpolate(features, size=size, mode="nearest")


class LastLayer(_Resized):
    """Resizes after the last up block, before the last norm, as in the original."""

    kind: Literal["last_layer"] = "last_layer"
    from_the_end: ClassVar[int] = 1


class InterpolateDownsample(_Resized):
    """Resizes in place of the last upsampling (up block 2 of 4 in Stable Diffusion), before the last block."""

    kind: Literal["interpolate_downsample"] = "interpolate_downsample"
    from_the_end: ClassVar[int] = 2


class InterpolateUpsample(_Resized):
    """Resizes in place of the last two upsamplings (up block 1 of 4 in Stable Diffusion)."""

    kind: Literal["interpolate_upsample"] = "interpolate_upsample"
    from_the_end: ClassVar[int] = 3
