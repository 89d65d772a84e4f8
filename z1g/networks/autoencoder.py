"""The two halves of a VAE, also for images of more channels than a color has."""

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL
from torch import Tensor, nn

from z1g.networks import wide_attention
from z1g.networks.half import bf16_weights, call_with
from z1g.networks.wider import resized

RGB = 3
IN_FLOAT32 = ("decoder.conv_out",)
"""Parameters of the decoder that stay in float32 with `whole_bf16`."""
ALIGNED = 8
"""Output channels are padded to a multiple of this; other numbers use slow GPU kernels."""


def widened(vae: AutoencoderKL, sources: Sequence[int]) -> AutoencoderKL:
    """A VAE for images of more channels, with the weights of another one.

    sources: for each channel, the channel of the other VAE's images whose weights its first and last layers repeat. If
    `sources[i]` is i for the first channels, the VAE does with them what the other one does, where further channels
    are zero. Source: DiffSplat (Lin et al. 2025), which repeats both convolutions.
    """
    state = dict(vae.state_dict())
    rows = list(sources)
    state["encoder.conv_in.weight"] = state["encoder.conv_in.weight"][:, rows]
    for name in ("decoder.conv_out.weight", "decoder.conv_out.bias"):
        state[name] = state[name][rows]
    wide: AutoencoderKL = resized(vae, state, in_channels=len(rows), out_channels=len(rows))
    return wide


def latent_shape(vae: AutoencoderKL, side: int) -> tuple[int, int, int]:
    """Shape [C,h,w] of the latents of square images of `side` pixels: all levels but the last halve them."""
    latent = side // 2 ** (len(vae.config["block_out_channels"]) - 1)
    return int(vae.config["latent_channels"]), latent, latent


def aligned_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolution [B,O,H,W] with a 3x3 kernel, computed with a number of channels that is a multiple of `ALIGNED`."""
    padding = -len(bias) % ALIGNED
    padded = functional.pad(weight, (0, 0, 0, 0, 0, 0, 0, padding))
    return functional.conv2d(x, padded, functional.pad(bias, (0, padding)), padding=1)[:, : len(bias)]


class ImageEncoder(nn.Module):
    """Encoder and quantization convolution of a VAE, which may be `widened`.

    Images may have `extra_channels` after the color. They have a first layer of their own, `extra_in`, whose output is
    added to that of the VAE's; its weights start at zero, as in ControlNet (Zhang et al. 2023).
    """

    def __init__(self, vae: AutoencoderKL, extra_channels: int = 0) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.extra_in: nn.Conv2d | None = None
        if extra_channels:
            self.extra_in = nn.Conv2d(extra_channels, vae.encoder.conv_in.out_channels, 3, padding=1, bias=False)
            nn.init.zeros_(self.extra_in.weight)
        wide_attention.install(self.encoder)
        self.quant_conv = vae.quant_conv
        self.scaling_factor = float(vae.config["scaling_factor"])
        self.whole_bf16 = False

    def forward(self, image: Tensor) -> Tensor:
        """Mean and log variance [B,2C,h,w] of the posterior of images in -1..1.

        They have the channels of the VAE, [B,3,H,W], or the extra ones, too, [B,3+extra,H,W].
        """
        own = self.encoder.conv_in.in_channels
        x = self.encoder.conv_in(image[:, :own])
        if self.extra_in is not None and image.shape[1] > own:
            x = x + self.extra_in(image[:, own:])
        for block in self.encoder.down_blocks:
            x = block(x)
        x = self.encoder.conv_act(self.encoder.conv_norm_out(self.encoder.mid_block(x)))
        moments: Tensor = self.quant_conv(self.encoder.conv_out(x))
        return moments

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B,C,h,w] of the posterior of images, see `forward`."""
        mean, log_variance = self._moments(image).float().chunk(2, dim=1)
        return mean, torch.exp(0.5 * log_variance.clamp(-30, 20))

    def _moments(self, image: Tensor) -> Tensor:
        """See `forward`. With `whole_bf16`, bfloat16 weights replace autocast, see `Denoiser`."""
        device_type = image.device.type
        if not (self.whole_bf16 and torch.is_autocast_enabled(device_type)):
            return self(image)  # type: ignore[no-any-return]
        with torch.autocast(device_type, enabled=False):
            moments: Tensor = call_with(self, bf16_weights(self), image.to(torch.bfloat16))
        return moments


class ImageDecoder(nn.Module):
    """Quantization convolution and decoder of a VAE."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder
        wide_attention.install(self.decoder)
        self.whole_bf16 = False

    def forward(self, latent: Tensor) -> Tensor:
        """Images [B,C',H,W] in about -1..1 of latents [B,C,h,w], in the units of the encoder's posterior.

        With `whole_bf16`, bfloat16 weights replace autocast, see `Denoiser`; the last layer is in float32.
        """
        device_type = latent.device.type
        if not (self.whole_bf16 and torch.is_autocast_enabled(device_type)):
            return self._decoded(latent)
        with torch.autocast(device_type, enabled=False):
            images: Tensor = call_with(self, bf16_weights(self, IN_FLOAT32), latent)
        return images

    def _decoded(self, latent: Tensor) -> Tensor:
        decoder = self.decoder
        x = decoder.conv_in(self.post_quant_conv(latent.to(self.post_quant_conv.weight.dtype)))
        x = decoder.mid_block(x)
        for block in decoder.up_blocks:
            x = block(x)
        x = decoder.conv_act(decoder.conv_norm_out(x)).to(decoder.conv_out.weight.dtype)
        return aligned_conv(x, decoder.conv_out.weight, decoder.conv_out.bias)
