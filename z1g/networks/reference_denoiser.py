"""The conditioned UNet of Zero123++, for training and inference."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from z1g.networks import reference_attention
from z1g.networks.denoiser import Condition
from z1g.networks.preprocessing import ImageProcessor
from z1g.networks.unet_denoiser import UNetDenoiser


class ReferenceDenoiser(UNetDenoiser):
    """Zero123++'s UNet: reference attention to the condition's latent; its CLIP embedding is added to the prompt."""

    prompt: Tensor
    ramping: Tensor

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vision: nn.Module,
        prompt: Tensor,
        ramping: Tensor,
        train_conditioning: bool,
        processor: ImageProcessor | None = None,
        clip_sample: bool = False,
    ) -> None:
        """prompt [T,D]: embedding of the empty prompt; ramping [T]: weight of the image embedding in each token.

        processor: see `UNetDenoiser`. clip_sample: see `Denoiser.clip_sample`.
        """
        super().__init__(unet, vision, processor)
        reference_attention.install(unet)
        self.train_conditioning = train_conditioning
        self.clip_sample = clip_sample
        self.prompt = nn.Parameter(prompt, requires_grad=train_conditioning)
        self.register_buffer("ramping", ramping)
        vision.requires_grad_(train_conditioning)

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Condition, condition_noise: Tensor) -> Tensor:
        """v prediction [B,C,h,w] of noised codes at integer timesteps [B].

        The condition latent is noised to the same timestep with `condition_noise` (its shape). Source: Zero123++
        (Shi et al. 2023), noised reference attention and global embedding added to the prompt with a linear ramp.
        """
        embedding, more = condition.embedding.tensor_split([self.prompt.shape[1]], dim=1)
        tokens = self.prompt + embedding[:, None, :] * self.ramping[:, None]
        if more.shape[1]:
            tokens = torch.cat([tokens, more.unflatten(1, (-1, self.prompt.shape[1]))], dim=1)
        noised_condition = self.schedule.add_noise(condition.latent, condition_noise, timestep)
        memory: reference_attention.Memory = {}
        with self._network(noisy.device) as (unet, dtype), reference_attention.kernels(self.attention):
            tokens, sample = tokens.to(dtype), noisy.to(dtype)
            reference_attention.run(unet, noised_condition.to(dtype), timestep, tokens, write=memory)
            return reference_attention.run(unet, sample, timestep, tokens, read=memory).to(noisy.dtype)
