"""The conditioned UNet of Zero123++, for training and inference."""

from __future__ import annotations

from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from z1g.networks import attention_kernels, reference_attention
from z1g.networks.denoiser import Condition
from z1g.networks.preprocessing import ImageProcessor
from z1g.networks.prompted_denoiser import PromptedDenoiser


class ReferenceDenoiser(PromptedDenoiser):
    """Zero123++'s UNet: reference attention to the condition's latent; its CLIP embedding is added to the prompt."""

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
        """See `PromptedDenoiser`. clip_sample: see `Denoiser.clip_sample`."""
        super().__init__(unet, vision, prompt, ramping, train_conditioning, processor)
        reference_attention.install(unet)
        self.clip_sample = clip_sample

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Condition, condition_noise: Tensor) -> Tensor:
        """v prediction [B,C,h,w] of noised codes at integer timesteps [B].

        The condition latent is noised to the same timestep with `condition_noise` (its shape). Source: Zero123++
        (Shi et al. 2023), noised reference attention and global embedding added to the prompt with a linear ramp.
        """
        tokens = self.tokens(condition.embedding)
        noised_condition = self.schedule.add_noise(condition.latent, condition_noise, timestep)
        memory: reference_attention.Memory = {}
        with self._network(noisy.device) as (unet, dtype), attention_kernels.kernels(self.attention):
            tokens, sample = tokens.to(dtype), noisy.to(dtype)
            reference_attention.run(unet, noised_condition.to(dtype), timestep, tokens, write=memory)
            return reference_attention.run(unet, sample, timestep, tokens, read=memory).to(noisy.dtype)
