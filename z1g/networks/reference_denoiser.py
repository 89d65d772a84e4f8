"""The conditioned UNet of Zero123++, for training and inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn

from z1g.networks import reference_attention
from z1g.networks.clip import CLIP_MEAN, CLIP_STD
from z1g.networks.denoiser import Condition, Denoiser
from z1g.networks.half import bf16_weights, call_with
from z1g.networks.preprocessing import ImageProcessor
from z1g.networks.vision.efficientnet import EfficientNetEncoder

# Stages load networks in milliseconds, so progress bars are not needed.
diffusers_logging.disable_progress_bar()


class ReferenceDenoiser(Denoiser):
    """Zero123++'s UNet: reference attention to the condition's latent; its CLIP embedding is added to the prompt."""

    prompt: Tensor
    ramping: Tensor
    clip_mean: Tensor
    clip_std: Tensor

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

        processor: of the images that are embedded; None: resized in floats and normalized by CLIP's statistics.
        clip_sample: see `Denoiser.clip_sample`.
        """
        super().__init__()
        reference_attention.install(unet)
        self.unet, self.vision = unet, vision
        self.train_conditioning = train_conditioning
        self.processor, self.clip_sample = processor, clip_sample
        self.prompt = nn.Parameter(prompt, requires_grad=train_conditioning)
        self.register_buffer("ramping", ramping)
        for name, values in (("clip_mean", CLIP_MEAN), ("clip_std", CLIP_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        vision.requires_grad_(train_conditioning)

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings [B,D] of condition images [B,3,H,W] in 0..1, resized to the encoder's resolution.

        The first channels, as many as a prompt token has, are a global embedding; others are more tokens.
        """
        if isinstance(self.vision, EfficientNetEncoder):
            embeddings: Tensor = self.vision(images)
            return embeddings
        embedding: Tensor = self.vision(pixel_values=self._pixels(images)).image_embeds
        return embedding

    def _pixels(self, images: Tensor) -> Tensor:
        if self.processor is not None:
            return self.processor(images)
        size = int(self.vision.config.image_size)
        resized = nn.functional.interpolate(images, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        return (resized - self.clip_mean) / self.clip_std

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

    @contextmanager
    def _network(self, device: torch.device) -> Iterator[tuple[reference_attention.UNet, torch.dtype]]:
        """The UNet and the type of its inputs.

        With `whole_bf16`, weights that are cast once for both passes replace autocast, which would compute norms and
        activations in float32 and take more time than the casts. Gradients reach the stored float32 weights.
        """
        if not (self.whole_bf16 and torch.is_autocast_enabled(device.type)):
            yield self.unet, self.unet.dtype
            return
        with torch.autocast(device.type, enabled=False):
            yield partial(call_with, self.unet, bf16_weights(self.unet)), torch.bfloat16

    @property
    def embedding_width(self) -> int:
        tokens = self.vision.tokens**2 if isinstance(self.vision, EfficientNetEncoder) else 0
        return int(self.prompt.shape[1]) * (1 + tokens)
