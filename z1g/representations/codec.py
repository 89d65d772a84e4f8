"""Interface of the networks of stage 1, and all networks of a trained method."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from z1g.gaussians.channels import enlarged
from z1g.networks.fused.modules import fuse_where_possible

if TYPE_CHECKING:
    from pathlib import Path

    from z1g.networks.denoiser import Denoiser

DECODED_AT_ONCE = 4
"""Codes that `decode_all` decodes together."""
CHANNEL_AXIS = -3
"""Axis of a code whose entries are normalized separately."""


class Codec(nn.Module):
    """Encoder and decoder between objects and codes of shape `code_shape`.

    `encoder` and `decoder` are the modules that hold the parameters of each half. Codes are in the decoder's units.
    """

    encoder: nn.Module
    decoder: nn.Module
    code_shape: tuple[int, ...]
    uses_splats = False
    """Whether `inputs` needs fitted splats; if not, they are not read."""

    @abstractmethod
    def inputs(self, rgb: Tensor, alpha: Tensor, splats: Tensor | None) -> Tensor:
        """Encoder inputs of B objects.

        rgb, alpha: the six input images, premultiplied [B,6,3,H,W] and [B,6,1,H,W] in 0..1. splats: activated splatter
        images [B,6,14,S,S], or None if `uses_splats` is false or nothing was fitted.
        """

    @abstractmethod
    def posterior(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the posterior of `inputs`, each [B,*code_shape]."""

    @abstractmethod
    def code(self, mean: Tensor, deviation: Tensor, noise: Tensor | None) -> Tensor:
        """Codes [B,*code_shape] of a posterior: a sample from standard normal `noise`, or the mean if it is None."""

    @abstractmethod
    def decode(self, code: Tensor) -> Tensor:
        """Activated splatter images [B,6,14,S,S] in the view-1 frame from codes [B,*code_shape]."""

    def decode_all(self, codes: Tensor) -> Tensor:
        """`decode` in small batches, to limit memory."""
        return torch.cat([self.decode(part) for part in codes.split(DECODED_AT_ONCE)])

    @abstractmethod
    def condition_latent(self, images: Tensor) -> Tensor:
        """Latents [B,...] of condition images [B,3,H,W] in 0..1, for the denoiser's condition."""

    def zero_latent(self, size: int, device: torch.device) -> Tensor:
        """The latent [1,...] that represents no condition: of the network's input of zeros, for images of that size."""
        return self.condition_latent(torch.full((1, 3, size, size), 0.5, device=device))

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what `Representation.load_codec` reads."""

    def encode(self, inputs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Codes of inputs, see `code`."""
        return self.code(*self.posterior(inputs), noise)

    def losses(self, code: Tensor, splats: Tensor, splats_true: Tensor | None) -> dict[str, Tensor]:
        """Weighted loss terms of the representation, added to stage 1's losses; none by default."""
        return {}

    def normalization(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of codes [N,*code_shape] per channel, broadcastable to a code."""
        axes = [axis for axis in range(codes.ndim) if axis != codes.ndim + CHANNEL_AXIS]
        mean, deviation = codes.mean(dim=axes, keepdim=True)[0], codes.std(dim=axes, keepdim=True)[0]
        return mean, deviation.clamp(min=1e-6)

    def networks(self) -> list[nn.Module]:
        """The networks that `train.speed` applies to."""
        return []

    def last_layers(self) -> list[Tensor]:
        """Trained weights of the decoder's last layers, at which gradients of losses are compared."""
        trained: list[Tensor] = [parameter for parameter in self.decoder.parameters() if parameter.requires_grad]
        return trained[-1:]

    def use_bf16_weights(self, whole: bool) -> None:
        """Use weights cast to bfloat16 once per step in place of autocast, or not."""

    def for_inference(self, device: torch.device) -> Codec:
        """Move to a device, in place, and use fused kernels where available."""
        self.to(device)
        for network in (self.encoder, self.decoder):
            fuse_where_possible(network, device)
        return self

    def decode_compared(self, code: Tensor, splats_true: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """`decode` and `losses` of codes, for codecs whose losses compare what precedes the splatter images."""
        splats = self.decode(code)
        truth = None if splats_true is None else enlarged(splats_true, splats.shape[-1])
        return splats, self.losses(code, splats, truth)

    @property
    def encoder_is_trained(self) -> bool:
        """Whether any encoder weight is trained. The posterior of a frozen encoder is constant."""
        return any(parameter.requires_grad for parameter in self.encoder.parameters())


@dataclass(frozen=True)
class Trained:
    """All networks of a trained method.

    statistics: `mean` and `deviation`, broadcastable to a code: `code * deviation + mean` is in the decoder's units.
    `zero_latent` [1,...]: see `Codec.zero_latent`.
    """

    codec: Codec
    denoiser: Denoiser
    statistics: dict[str, Tensor]
