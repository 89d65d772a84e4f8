"""The image encoder of a VAE."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from z1g.networks import wide_attention
from z1g.networks.half import bf16_weights, call_with


class ImageEncoder(nn.Module):
    """Encoder and quantization convolution of a VAE."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.encoder = vae.encoder
        wide_attention.install(self.encoder)
        self.quant_conv = vae.quant_conv
        self.scaling_factor = float(vae.config["scaling_factor"])
        self.whole_bf16 = False

    def forward(self, image: Tensor) -> Tensor:
        """Mean and log variance [B,2C,h,w] of the posterior of images [B,3,H,W] in -1..1."""
        moments: Tensor = self.quant_conv(self.encoder(image))
        return moments

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B,C,h,w] of the posterior of images [B,3,H,W] in -1..1."""
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
