"""Builds the random networks of `model: {kind: scratch}`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from z1g.core.seeding import seeded
from z1g.networks.denoiser import Denoiser

if TYPE_CHECKING:
    from z1g.networks.weights.scratch import Scratch
    from z1g.networks.weights.sizes import AutoencoderSize


def autoencoder(size: AutoencoderSize, seed: int) -> AutoencoderKL:
    """An AutoencoderKL with random weights."""
    levels = len(size.channels)
    with seeded(seed):
        return AutoencoderKL(
            block_out_channels=size.channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=size.layers_per_block,
            latent_channels=size.latent_channels,
            norm_num_groups=size.norm_groups,
        )


def denoiser(options: Scratch) -> Denoiser:
    """UNet, vision encoder and prompt with random weights, all of them trained."""
    size, vision = options.unet_size, options.vision_size
    levels = len(size.channels)
    with seeded(options.init_seed + 1):
        unet = UNet2DConditionModel(
            in_channels=options.autoencoder_size.latent_channels,
            out_channels=options.autoencoder_size.latent_channels,
            block_out_channels=size.channels,
            down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
            layers_per_block=size.layers_per_block,
            attention_head_dim=tuple(c // size.head_dim for c in size.channels),
            cross_attention_dim=size.cross_attention_dim,
            norm_num_groups=size.norm_groups,
            use_linear_projection=True,
        )
        # An output of zero is the mean of v over the noise, a calmer start than a random field.
        torch.nn.init.zeros_(unet.conv_out.weight)
        encoder = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=vision.width,
                intermediate_size=4 * vision.width,
                projection_dim=size.cross_attention_dim,
                num_hidden_layers=vision.layers,
                num_attention_heads=vision.heads,
                image_size=vision.image_size,
                patch_size=vision.patch_size,
            )
        )
        prompt = 0.02 * torch.randn(options.prompt_tokens, size.cross_attention_dim)
    ramping = torch.linspace(0, 1, options.prompt_tokens)
    return Denoiser(unet, encoder, prompt, ramping, train_conditioning=True)
