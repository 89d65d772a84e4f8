"""The same architecture from the same classes at any size, with random weights."""

from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import Field, model_validator

from z1g.config.slot import Section
from z1g.model import Model

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from z1g.networks.denoiser import Denoiser

S = TypeVar("S", bound=Section)


def _check_groups(section: S, channels: tuple[int, ...], divisor: int) -> S:
    if any(c % divisor for c in channels):
        raise ValueError(f"every entry of channels {list(channels)} must be a multiple of {divisor}")
    return section


class AutoencoderSize(Section):
    """AutoencoderKL: halves the picture between levels."""

    channels: tuple[int, ...] = Field((128, 256, 512, 512), min_length=2, description="channels of each level")
    layers_per_block: int = Field(2, ge=1, description="residual blocks of each level")
    latent_channels: int = Field(4, ge=1, description="channels of the code")
    norm_groups: int = Field(32, ge=1, description="groups of the group norms; divides every channel count")

    @model_validator(mode="after")
    def _divisible(self) -> "AutoencoderSize":
        return _check_groups(self, self.channels, self.norm_groups)


class UNetSize(Section):
    """UNet2DConditionModel: the first levels cross-attend, the last does not."""

    channels: tuple[int, ...] = Field((320, 640, 1280, 1280), min_length=2, description="channels of each level")
    layers_per_block: int = Field(2, ge=1, description="residual blocks of each level")
    head_dim: int = Field(64, ge=4, description="channels of an attention head; divides every channel count")
    cross_attention_dim: int = Field(1024, ge=8, description="width of a prompt token")
    norm_groups: int = Field(32, ge=1, description="groups of the group norms")

    @model_validator(mode="after")
    def _divisible(self) -> "UNetSize":
        _check_groups(self, self.channels, self.head_dim)
        return _check_groups(self, self.channels, self.norm_groups)


class VisionSize(Section):
    """CLIP-like vision encoder, trained along with the UNet when random."""

    image_size: int = Field(224, ge=16, description="side of the picture it sees")
    patch_size: int = Field(14, ge=2, description="side of a patch")
    width: int = Field(1280, ge=8, description="width of a token")
    layers: int = Field(32, ge=1, description="transformer layers")
    heads: int = Field(16, ge=1, description="attention heads")


class Scratch(Model):
    """Random weights. What small experiments use, and a baseline without any pretraining."""

    kind: Literal["scratch"] = "scratch"
    autoencoder_size: AutoencoderSize = AutoencoderSize()
    unet_size: UNetSize = UNetSize()
    vision_size: VisionSize = VisionSize()
    prompt_tokens: int = Field(77, ge=1, description="length of the learned prompt")
    init_seed: int = Field(0, ge=0, description="seed of the random weights")

    @property
    def pretrained_encoder(self) -> bool:
        return False

    @property
    def latent_factor(self) -> int:
        return int(2 ** (len(self.autoencoder_size.channels) - 1))

    def autoencoder(self) -> "AutoencoderKL":
        from z1g.networks import scratch

        return scratch.autoencoder(self.autoencoder_size, self.init_seed)

    def denoiser(self) -> "Denoiser":
        from z1g.networks import scratch

        return scratch.denoiser(self)
