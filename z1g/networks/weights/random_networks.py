"""Build the random networks of `model: {kind: scratch}`."""

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from z1g.core.seeding import seeded
from z1g.networks.reference_denoiser import ReferenceDenoiser
from z1g.networks.weights.sizes import AutoencoderSize, UNetSize


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


def denoiser(
    size: UNetSize, vision: Callable[[int], nn.Module], latent_channels: int, prompt_tokens: int, seed: int
) -> ReferenceDenoiser:
    """UNet and prompt with random weights, and an image encoder, all of them trainable.

    vision: makes the image encoder, given the width of its embedding.
    """
    levels = len(size.channels)
    with seeded(seed + 1):
        unet = UNet2DConditionModel(
            in_channels=latent_channels,
            out_channels=latent_channels,
            block_out_channels=size.channels,
            down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
            layers_per_block=size.layers_per_block,
            attention_head_dim=tuple(c // size.head_dim for c in size.channels),
            cross_attention_dim=size.cross_attention_dim,
            norm_num_groups=size.norm_groups,
            use_linear_projection=True,
        )
        # The mean of v over the noise is zero, which is a better initial output than a random one.
        torch.nn.init.zeros_(unet.conv_out.weight)
        encoder = vision(size.cross_attention_dim)
        prompt = 0.02 * torch.randn(prompt_tokens, size.cross_attention_dim)
    ramping = torch.linspace(0, 1, prompt_tokens)
    return ReferenceDenoiser(unet, encoder, prompt, ramping, train_conditioning=True)
