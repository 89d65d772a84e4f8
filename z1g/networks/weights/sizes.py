"""Sizes of networks with random weights."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import Field, model_validator

from z1g.core.slots import Section

S = TypeVar("S", bound=Section)
Channels = Annotated[int, Field(ge=1, le=16_384)]


def _check_groups(section: S, channels: tuple[int, ...], divisor: int) -> S:
    if any(c % divisor for c in channels):
        raise ValueError(f"every entry of channels {list(channels)} must be a multiple of {divisor}")
    return section


class AutoencoderSize(Section):
    """AutoencoderKL: each level has half the resolution of the one before."""

    channels: tuple[Channels, ...] = Field(
        (128, 256, 512, 512), min_length=2, max_length=12, description="channels of each level"
    )
    layers_per_block: int = Field(2, ge=1, le=64, description="residual blocks of each level")
    latent_channels: int = Field(4, ge=1, le=1024, description="channels of the code")
    norm_groups: int = Field(32, ge=1, le=1024, description="groups of the group norms; divides every channel count")

    @model_validator(mode="after")
    def _divisible(self) -> AutoencoderSize:
        return _check_groups(self, self.channels, self.norm_groups)


class UNetSize(Section):
    """UNet2DConditionModel: all levels except the last have cross-attention."""

    channels: tuple[Channels, ...] = Field(
        (320, 640, 1280, 1280), min_length=2, max_length=12, description="channels of each level"
    )
    layers_per_block: int = Field(2, ge=1, le=64, description="residual blocks of each level")
    head_dim: int = Field(64, ge=4, le=1024, description="channels of an attention head; divides every channel count")
    cross_attention_dim: int = Field(1024, ge=8, le=65_536, description="width of a prompt token")
    norm_groups: int = Field(32, ge=1, le=1024, description="groups of the group norms")

    @model_validator(mode="after")
    def _divisible(self) -> UNetSize:
        _check_groups(self, self.channels, self.head_dim)
        return _check_groups(self, self.channels, self.norm_groups)
