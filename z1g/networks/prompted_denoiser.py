"""Denoisers whose UNet attends to a prompt with the embedding of the condition image, as Zero123++'s does."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from z1g.networks.preprocessing import ImageProcessor
from z1g.networks.unet_denoiser import UNetDenoiser


class PromptedDenoiser(UNetDenoiser):
    """The embedding of the condition image is added to the prompt with a linear ramp (Zero123++, Shi et al. 2023)."""

    prompt: Tensor
    ramping: Tensor

    def __init__(
        self, unet: UNet2DConditionModel, vision: nn.Module, prompt: Tensor, ramping: Tensor, train_conditioning: bool,
        processor: ImageProcessor | None = None,
    ) -> None:  # fmt: skip
        """prompt [T,D]: embedding of the empty prompt; ramping [T]: weight of the image embedding in each token.

        train_conditioning: whether prompt and image encoder are trained. processor: see `UNetDenoiser`.
        """
        super().__init__(unet, vision, processor)
        self.train_conditioning = train_conditioning
        self.prompt = nn.Parameter(prompt, requires_grad=train_conditioning)
        self.register_buffer("ramping", ramping)
        vision.requires_grad_(train_conditioning)

    def tokens(self, embedding: Tensor) -> Tensor:
        """Tokens [B,T,D] of the UNet's cross-attention from embeddings [B,D·(1+n)]; n more tokens follow the prompt."""
        first, more = embedding.tensor_split([self.prompt.shape[1]], dim=1)
        tokens = self.prompt + first[:, None, :] * self.ramping[:, None]
        if more.shape[1]:
            tokens = torch.cat([tokens, more.unflatten(1, (-1, self.prompt.shape[1]))], dim=1)
        return tokens
