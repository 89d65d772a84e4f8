"""What denoisers with a UNet of diffusers and an image encoder have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn

from z1g.networks.clip import CLIP_MEAN, CLIP_STD
from z1g.networks.denoiser import Denoiser
from z1g.networks.half import bf16_weights, call_with
from z1g.networks.preprocessing import ImageProcessor
from z1g.networks.vision.efficientnet import EfficientNetEncoder

# Stages load networks in milliseconds, so progress bars are not needed.
diffusers_logging.disable_progress_bar()
UNet = Callable[..., tuple[Tensor, ...]]


class UNetDenoiser(Denoiser):
    """A UNet, and an image encoder whose embedding of the condition image it attends to."""

    clip_mean: Tensor
    clip_std: Tensor

    def __init__(self, unet: UNet2DConditionModel, vision: nn.Module, processor: ImageProcessor | None = None) -> None:
        """processor: of the images that are embedded; None: resized in floats and normalized by CLIP's statistics."""
        super().__init__()
        self.unet, self.vision, self.processor = unet, vision, processor
        for name, values in (("clip_mean", CLIP_MEAN), ("clip_std", CLIP_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings [B,D] of condition images [B,3,H,W] in 0..1, resized to the encoder's resolution.

        The first channels, as many as a token has, are a global embedding; others are more tokens.
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

    @contextmanager
    def _network(self, device: torch.device) -> Iterator[tuple[UNet, torch.dtype]]:
        """The UNet and the type of its inputs.

        With `whole_bf16`, weights that are cast once for all passes replace autocast, which would compute norms and
        activations in float32 and take more time than the casts. Gradients reach the stored float32 weights.
        """
        if not (self.whole_bf16 and torch.is_autocast_enabled(device.type)):
            yield self.unet, self.unet.dtype
            return
        with torch.autocast(device.type, enabled=False):
            yield partial(call_with, self.unet, bf16_weights(self.unet)), torch.bfloat16

    @property
    def token_width(self) -> int:
        """Channels of a token of the UNet's cross-attention."""
        return int(self.unet.config["cross_attention_dim"])

    @property
    def embedding_width(self) -> int:
        tokens = self.vision.tokens**2 if isinstance(self.vision, EfficientNetEncoder) else 0
        return self.token_width * (1 + tokens)
