"""Decoder paths, from the latent grid to the splats' resolution, as slots."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    from torch import Tensor, nn


class DecoderPath(Slot):
    """The VAE decoder doubles the resolution between its levels, up to that of the input views.

    A path either resizes features to the splats' resolution inside the decoder (`resizes_after`, `resize`), or decodes
    at full resolution and downsamples the 14 raw channels (`downsampler`), or does neither.
    """

    kind: str

    def side(self, input_size: int, size: int) -> int:
        """Side of the decoded splatter images, for views of `input_size` and splats fitted at `size`."""
        return size

    @abstractmethod
    def problem(self, input_size: int, size: int, levels: int) -> str | None:
        """Why this path does not support these sizes and a decoder of `levels` levels; None if it does."""

    def resizes_after(self, levels: int) -> int | None:
        """Index of the up block whose residual layers precede the resizing; it and later blocks do not upsample."""
        return None

    def resize(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Features [B,C,h,w] resized to `size`."""
        return features

    def downsampler(self, size: tuple[int, int]) -> nn.Module | None:
        """Module that downsamples raw channels [B,14,H,W] to `size`, if any."""
        return None

    @property
    def mixes_channels(self) -> bool:
        """Whether trained layers follow the raw channels."""
        return False
