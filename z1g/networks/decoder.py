"""Latent codes to splatter images: the VAE decoder with a head of 14 channels."""

import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL
from torch import Tensor, nn

from z1g.model.decoder import DecoderOptions
from z1g.model.scale import ScaleActivation
from z1g.mosaic import untile
from z1g.networks import wide_attention
from z1g.networks.autoencoder import unscale_image, unscale_latents
from z1g.networks.half import bf16_weights, call_with
from z1g.splat import CHANNELS, N_GEOMETRY, activate_rgb, join, split

IN_FLOAT32 = ("scale_bias", "geometry_out", "decoder.conv_out")
"""Parameters that `whole_bf16` leaves alone: of what becomes splats directly."""


class SplatterDecoder(nn.Module):
    """Code [B,C,h,w] -> activated splatter images [B,6,14,S,S] in the view-1 frame.

    The VAE decoder's last features feed its own colour layer and a new layer for the 11 geometry channels; all 14 are
    multiplied by 1.6 (Zero123++'s image scale) before the activations.
    """

    anchor: Tensor

    def __init__(self, vae: AutoencoderKL, options: DecoderOptions, scale: ScaleActivation, anchor: Tensor) -> None:
        super().__init__()
        self.options, self.scale = options, scale
        self.scaling_factor = float(vae.config["scaling_factor"])
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder
        wide_attention.install(self.decoder)
        self.whole_bf16 = False
        self.geometry_out = nn.Conv2d(vae.decoder.conv_out.in_channels, N_GEOMETRY, 3, padding=1)
        self.scale_bias = nn.Parameter(torch.tensor(scale.initial_bias), requires_grad=scale.learnable)
        self.register_buffer(
            "anchor", anchor.float() if options.head == "geometry" else torch.zeros_like(anchor).float()
        )
        if options.head == "geometry":
            self._start_from_geometry()

    def forward(self, code: Tensor) -> Tensor:
        """Decode and activate. Raises ValueError where `plain` meets a code of another resolution.

        With `whole_bf16`, autocast gives way to weights in bfloat16, see `Denoiser`; the last layers are in float32.
        """
        if self.whole_bf16 and torch.is_autocast_enabled(code.device.type):
            with torch.autocast(code.device.type, enabled=False):
                splats: Tensor = call_with(self, bf16_weights(self, IN_FLOAT32), code)
            return splats
        return untile(self.activate(self.sheet(code)))

    def sheet(self, code: Tensor) -> Tensor:
        """Raw channels [B,14,3S,2S] of codes."""
        latent = unscale_latents(code) / self.scaling_factor
        x = self.decoder.conv_in(self.post_quant_conv(latent.to(self.post_quant_conv.weight.dtype)))
        x = self.decoder.mid_block(x)
        for block in self.decoder.up_blocks:
            x = block(x)
        size = tuple(self.anchor.shape[-2:])
        if tuple(x.shape[-2:]) != size:
            if self.options.path == "plain":
                raise ValueError(f"path 'plain' decodes to {tuple(x.shape[-2:])}, but the splats need {size}")
            x = functional.interpolate(x, size=size, mode="nearest")
        x = self.decoder.conv_act(self.decoder.conv_norm_out(x)).to(self.geometry_out.weight.dtype)
        return unscale_image(torch.cat([self.geometry_out(x), self.decoder.conv_out(x)], dim=1))

    def activate(self, sheet: Tensor) -> Tensor:
        """Activated channels [B,14,3S,2S] from raw ones, in float32."""
        raw = split(sheet.float(), dim=1)
        rotation_dim = 1 if self.options.rotation_norm == "gaussian" else -2
        return join(
            {
                "position": (raw["position"] + self.anchor).clamp(-1, 1),
                "opacity": torch.sigmoid(raw["opacity"]),
                "scale": self.scale.apply(raw["scale"], self.scale_bias),
                "rotation": functional.normalize(raw["rotation"], dim=rotation_dim),
                "rgb": activate_rgb(raw["rgb"]),
            },
            dim=1,
        )

    def _start_from_geometry(self) -> None:
        bias = torch.zeros(N_GEOMETRY)
        bias[CHANNELS["opacity"]] = -1.0
        bias[CHANNELS["rotation"].start] = 1.0
        self.geometry_out.bias = nn.Parameter(bias)
        with torch.no_grad():
            self.geometry_out.weight.mul_(0.1)
