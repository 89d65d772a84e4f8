"""Decodes latent codes to splatter images: the VAE decoder with a head of 14 channels."""

import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL
from torch import Tensor, nn

from z1g.gaussians.channels import CHANNELS, N_GEOMETRY, activate_rgb, join, split
from z1g.geometry.mosaic import untile
from z1g.networks import wide_attention
from z1g.networks.autoencoder import aligned_conv
from z1g.networks.half import bf16_weights, call_with
from z1g.representations.mosaic.decoder_options import DecoderOptions
from z1g.representations.mosaic.units import scale_image, unscale_image, unscale_latents
from z1g.representations.scale import ScaleActivation
from z1g.representations.splat_features import SplatRays

IN_FLOAT32 = ("scale_bias", "geometry_out", "downsampler", "decoder.conv_out")
"""Parameters that stay in float32 with `whole_bf16`: those of the layers that produce splats."""
START_PIXELS = 0.5
"""Initial standard deviation of a Gaussian, in pixel widths at the camera distance."""
START_OPACITY = -2.0
"""Initial raw opacity before the factor 1.6, which gives 0.04. Higher values slow down training, see benchmarks."""


class SplatterDecoder(nn.Module):
    """Code [B,C,h,w] -> activated splatter images [B,6,14,S,S] in the view-1 frame.

    The VAE decoder's last features feed its color layer and a new layer for the 11 geometry channels; all 14 are
    multiplied by 1.6 (Zero123++'s image scale) before the activations. `requires_grad` is set according to the options.
    """

    anchor: Tensor

    def __init__(self, vae: AutoencoderKL, options: DecoderOptions, scale: ScaleActivation, rays: SplatRays) -> None:
        super().__init__()
        self.options, self.scale = options, scale
        self.scaling_factor = float(vae.config["scaling_factor"])
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder
        wide_attention.install(self.decoder)
        self.whole_bf16 = False
        self.geometry_out = nn.Conv2d(vae.decoder.conv_out.in_channels, N_GEOMETRY, 3, padding=1)
        self.scale_bias = nn.Parameter(torch.tensor(scale.initial_bias), requires_grad=scale.learnable)
        self.size = (int(rays.anchor.shape[-2]), int(rays.anchor.shape[-1]))
        self.downsampler = options.path.downsampler(self.size) or nn.Identity()
        levels = len(vae.decoder.up_blocks)
        resized = options.path.resizes_after(levels)
        self.resized = levels if resized is None else resized
        anchor = rays.anchor.float()
        self.register_buffer("anchor", anchor if options.head == "geometry" else torch.zeros_like(anchor))
        if options.head == "geometry":
            self._start_from_geometry(rays.pixel)
        self._freeze()

    def forward(self, code: Tensor) -> Tensor:
        """Decode and activate. Raises ValueError if the resolution of the code does not fit the path.

        With `whole_bf16`, weights in bfloat16 replace autocast, see `Denoiser`; the last layers are in float32.
        """
        if self.whole_bf16 and torch.is_autocast_enabled(code.device.type):
            with torch.autocast(code.device.type, enabled=False):
                splats: Tensor = call_with(self, bf16_weights(self, IN_FLOAT32), code)
            return splats
        return untile(self.activate(self.raw_mosaic(code)))

    def raw_mosaic(self, code: Tensor) -> Tensor:
        """Mosaics of raw channels [B,14,3S,2S] from codes."""
        latent = unscale_latents(code) / self.scaling_factor
        x = self.decoder.conv_in(self.post_quant_conv(latent.to(self.post_quant_conv.weight.dtype)))
        x = self.decoder.mid_block(x)
        for i, block in enumerate(self.decoder.up_blocks):
            if i < self.resized or block.upsamplers is None:
                x = block(x)
            else:
                for layer in block.resnets:
                    x = layer(x, None)
            if i == self.resized:
                x = self.options.path.resize(x, self.size)
        x = self.decoder.conv_act(self.decoder.conv_norm_out(x)).to(self.geometry_out.weight.dtype)
        raw = self.downsampler(self._heads(x))
        if tuple(raw.shape[-2:]) != self.size:
            kind = self.options.path.kind
            raise ValueError(f"path '{kind}' decodes to {tuple(raw.shape[-2:])}, but the splats need {self.size}")
        return unscale_image(raw)

    def _heads(self, x: Tensor) -> Tensor:
        """Channels [B,14,H,W] of both output layers, by one convolution."""
        heads = (self.geometry_out, self.decoder.conv_out)
        biases = [head.bias for head in heads if head.bias is not None]
        return aligned_conv(x, torch.cat([head.weight for head in heads]), torch.cat(biases))

    def activate(self, raw_mosaic: Tensor) -> Tensor:
        """Activated channels [B,14,3S,2S] in float32 from raw channels."""
        raw = split(raw_mosaic.float(), dim=1)
        rotation_dim = 1 if self.options.rotation_norm == "gaussian" else -2
        return join(
            {
                "position": (raw["position"] + self.anchor).clamp(-1, 1),
                "opacity": torch.sigmoid(raw["opacity"]),
                "scale": self.scale.apply(raw["scale"], self.scale_bias),
                "rotation": functional.normalize(raw["rotation"], dim=rotation_dim),
                "rgb": self._rgb(raw["rgb"]),
            },
            dim=1,
        )

    def _rgb(self, raw: Tensor) -> Tensor:
        # The unmodified VAE decodes images in -1..1.
        return (0.5 * raw + 0.5).clamp(0, 1) if self.options.mode == "fixed_rgb" else activate_rgb(raw)

    def _start_from_geometry(self, pixel: float) -> None:
        bias = torch.zeros(N_GEOMETRY)
        bias[CHANNELS["opacity"]] = START_OPACITY
        bias[CHANNELS["scale"]] = scale_image(self.scale.inverse(START_PIXELS * pixel) - self.scale_bias.detach())
        bias[CHANNELS["rotation"].start] = 1.0
        self.geometry_out.bias = nn.Parameter(bias)
        nn.init.zeros_(self.geometry_out.weight)

    def _freeze(self) -> None:
        if self.options.mode == "fixed_rgb":
            self.decoder.requires_grad_(False)
        for block in self.decoder.up_blocks[self.resized :]:
            if block.upsamplers is not None:
                # These layers never run, and DDP would wait for their gradients.
                block.upsamplers.requires_grad_(False)
