"""Decoder paths: how the decoder gets from the latent grid to the splats' resolution, as slots."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    from torch import Tensor, nn


class DecoderPath(Slot):
    """The VAE decoder doubles the resolution between its levels, up to that of the input views.

    A path either lets the features meet the splats' resolution on the way (`resizes_after`, `resize`), or decodes at
    full resolution and shrinks the 14 raw channels (`downsampler`), or neither.
    """

    kind: str

    def side(self, input_size: int, size: int) -> int:
        """Side of the splatter images that come out, for views of `input_size` and splats fitted at `size`."""
        return size

    @abstractmethod
    def misfit(self, input_size: int, size: int, levels: int) -> str | None:
        """Why these sizes and a decoder of `levels` levels do not go with this path, or None where they do."""

    def resizes_after(self, levels: int) -> int | None:
        """The up block after whose residual layers features are resized; it and later ones do not upsample then."""
        return None

    def resize(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Features [B,C,h,w] at `size`."""
        return features

    def downsampler(self, size: tuple[int, int]) -> nn.Module | None:
        """What brings raw channels [B,14,H,W] to `size`."""
        return None

    @property
    def mixes_channels(self) -> bool:
        """Whether trained layers stand between the raw channels and the splats."""
        return False
