"""The trained method in memory: condition images in, codes and splatter images out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from z1g.networks.denoiser import Condition, Denoiser
from z1g.networks.fused.modules import fuse_where_possible
from z1g.networks.graphs import Replayed
from z1g.representations.mosaic.stage1 import Stage1
from z1g.sampling.options import InferOptions
from z1g.sampling.sample import PredictsV, sample_codes

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

DECODED_AT_ONCE = 4


class ImageToSplats:
    """Both stages, ready to sample."""

    def __init__(
        self, stage1: Stage1, denoiser: Denoiser, statistics: dict[str, Tensor], shape: tuple[int, int, int],
        options: InferOptions,
    ) -> None:  # fmt: skip
        """statistics: `mean` and `deviation` of codes and `zero_latent`, on the networks' device. shape: C,h,w."""
        self.stage1, self.denoiser, self.statistics = stage1, denoiser, statistics
        self.shape, self.options = shape, options
        denoiser.attention = options.attention
        if _bf16(options):
            # Only what runs at every step; what a image passes once keeps its precision.
            # diffusers' own `to` warns of layers that should stay float32, of which there are none.
            nn.Module.to(denoiser.unet, torch.bfloat16)
        fuse_where_possible(denoiser.unet, statistics["zero_latent"].device)
        self.predict: PredictsV = Replayed(denoiser) if options.cuda_graphs else denoiser

    @torch.no_grad()
    def __call__(
        self, images: Tensor, seeds: Sequence[int], scheduler: SchedulerMixin | None = None
    ) -> tuple[Tensor, Tensor]:
        """Codes [B,C,h,w] and splatter images [B,6,14,S,S] for condition images [B,3,H,W] in 0..1."""
        codes = self.codes(images, seeds, scheduler)
        return codes, self.decode(codes)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Splatter images [B,6,14,S,S] of codes in the decoder's units, few at a time, as its layers are large."""
        return torch.cat([self.stage1.decoder(part) for part in codes.split(DECODED_AT_ONCE)])

    @torch.no_grad()
    def codes(
        self, images: Tensor, seeds: Sequence[int], scheduler: SchedulerMixin | None = None
    ) -> Tensor:  # fmt: skip
        """Sampled codes [B,C,h,w] in the decoder's units. `scheduler` takes the place of the options' sampler."""
        condition, zero = self.condition(images), self.statistics["zero_latent"]
        codes = sample_codes(self.predict, condition, zero, self.shape, self.options, seeds, scheduler)
        return self.to_units(codes)

    def to_units(self, codes: Tensor) -> Tensor:
        """Codes in the decoder's units from those that the UNet is trained on."""
        return codes * self.statistics["deviation"] + self.statistics["mean"]

    def from_units(self, codes: Tensor) -> Tensor:
        """Inverse of `to_units`."""
        return (codes - self.statistics["mean"]) / self.statistics["deviation"]

    @torch.no_grad()
    def condition(self, images: Tensor) -> Condition:
        """What the UNet is told of condition images [B,3,H,W] in 0..1."""
        images = images.to(self.statistics["zero_latent"].device)
        return self.denoiser.condition(self.stage1.encoder.condition_latent(images), images)


def _bf16(options: InferOptions) -> bool:
    return options.precision == "bf16" or (options.precision == "auto" and torch.cuda.is_available())
