"""Images to latent codes: the VAE encoder with Zero123++'s latent and image scales."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from z1g.networks import wide_attention
from z1g.networks.half import bf16_weights, call_with

LATENT_SHIFT, LATENT_SCALE = 0.22, 0.75
IMAGE_SCALE = 0.5 / 0.8


def scale_latents(latents: Tensor) -> Tensor:
    """(x - 0.22)·0.75, Zero123++'s shift of sheet latents."""
    return (latents - LATENT_SHIFT) * LATENT_SCALE


def unscale_latents(latents: Tensor) -> Tensor:
    """Inverse of `scale_latents`."""
    return latents / LATENT_SCALE + LATENT_SHIFT


def scale_image(image: Tensor) -> Tensor:
    """x·0.5/0.8 for images in -1..1, Zero123++'s range of sheets."""
    return image * IMAGE_SCALE


def unscale_image(image: Tensor) -> Tensor:
    """Inverse of `scale_image`: x·1.6."""
    return image / IMAGE_SCALE


class ImageEncoder(nn.Module):
    """The VAE's encoder half."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.encoder = vae.encoder
        wide_attention.install(self.encoder)
        self.quant_conv = vae.quant_conv
        self.scaling_factor = float(vae.config["scaling_factor"])
        self.whole_bf16 = False

    def forward(self, image: Tensor) -> Tensor:
        """Mean and logarithm of the variance [B,2C,h,w] of the latent of images [B,3,H,W] in -1..1."""
        moments: Tensor = self.quant_conv(self.encoder(image))
        return moments

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B,C,h,w] of the latent of images [B,3,H,W] in -1..1."""
        mean, log_variance = self._moments(image).float().chunk(2, dim=1)
        return mean, torch.exp(0.5 * log_variance.clamp(-30, 20))

    def _moments(self, image: Tensor) -> Tensor:
        """See `forward`. With `whole_bf16`, autocast gives way to weights in bfloat16, see `Denoiser`."""
        kind = image.device.type
        if not (self.whole_bf16 and torch.is_autocast_enabled(kind)):
            return self(image)  # type: ignore[no-any-return]
        with torch.autocast(kind, enabled=False):
            moments: Tensor = call_with(self, bf16_weights(self), image.to(torch.bfloat16))
        return moments

    def code_shape(self, sheet: Tensor) -> tuple[int, int, int]:
        """C,h,w of the code of a sheet [B,3,H,W]."""
        factor = 2 ** (len(self.encoder.down_blocks) - 1)
        return self.quant_conv.out_channels // 2, sheet.shape[-2] // factor, sheet.shape[-1] // factor

    def sheet_code(self, sheet: Tensor, noise: Tensor | None) -> Tensor:
        """Code [B,C,h,w] of sheets [B,3,3H,2W] in 0..1: a posterior sample with `noise`, or the mean without."""
        return self.code(*self.sheet_posterior(sheet), noise)

    def sheet_posterior(self, sheet: Tensor) -> tuple[Tensor, Tensor]:
        """See `posterior`; of sheets [B,3,3H,2W] in 0..1."""
        return self.posterior(scale_image(2 * sheet - 1))

    def code(self, mean: Tensor, deviation: Tensor, noise: Tensor | None) -> Tensor:
        """Code of a sheet's posterior, see `sheet_code`."""
        latent = mean if noise is None else mean + deviation * noise
        return scale_latents(latent * self.scaling_factor)

    def condition_latent(self, image: Tensor) -> Tensor:
        """Latent [B,C,h,w] of condition images [B,3,H,W] in 0..1, without the scaling factor, as Zero123++ has it."""
        return self.posterior(2 * image - 1)[0]
