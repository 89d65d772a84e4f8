"""Adversarial loss on renders: a discriminator learns to tell them from images, the decoder to mislead it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from z1g.core.slots import Section

if TYPE_CHECKING:
    import torch
else:
    from z1g.core.lazy import torch

SMALLEST_OUTPUT = 3
"""Least side of the last strided layer's output: the two layers that follow take a pixel each."""


class Adversarial(Section):
    """A discriminator of renders, with the hinge loss, trained along with the decoder.

    Squared errors and perceptual distances have their minimum at an average of what is possible, which is blurred; a
    discriminator sees that no image is (VQGAN, Esser et al. 2021, section 3.1).
    """

    weight: float = Field(
        0.5, gt=0, le=1e6, description="factor of the decoder's term; with `adaptive`, in units of the other losses"
    )
    adaptive: bool = Field(
        True,
        description="also multiply by the ratio of the norms of both gradients, of the other losses and of this term, "
        "at the decoder's last layer (Esser et al. 2021, equation 7)",
    )
    start: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="fraction of the steps after which the decoder learns from the discriminator, which learns before",
    )
    judge: Literal["pixels", "features"] = Field(
        "pixels",
        description="what the discriminator sees. pixels: patches of images (Isola et al. 2017); features: those of "
        "ST-LPIPS' AlexNet, frozen, at each of its five levels (Projected GANs, Sauer et al. 2021)",
    )
    resolution: int = Field(
        128, ge=64, le=4096, description="side in pixels to which renders and images are resized for the discriminator"
    )
    crop: bool = Field(
        False,
        description="show windows with a side of `resolution` instead of resized renders, other places each epoch",
    )
    views: int | None = Field(None, ge=1, le=10_000, description="number of renders per object to judge; null: all")
    alpha: bool = Field(False, description="show alpha beside color; of pixels only")
    channels: int = Field(
        64, ge=1, le=4096, description="channels of the first layer; later ones have up to 8 times, of pixels"
    )
    layers: int = Field(
        3, ge=1, le=8, description="layers that halve the image, of pixels; with 3, patches have 70 pixels"
    )
    lr: float = Field(2e-4, gt=0, le=1000, description="learning rate of the discriminator, which is constant")

    @model_validator(mode="after")
    def _halves(self) -> Self:
        if self.judge == "features":
            if self.alpha:
                raise ValueError("alpha: features are of colors; leave it out or judge pixels")
            return self
        step = 2**self.layers
        if self.resolution % step or self.resolution < SMALLEST_OUTPUT * step:
            raise ValueError(
                f"resolution {self.resolution} must be a multiple of {step}, as {self.layers} layers halve the image, "
                f"and at least {SMALLEST_OUTPUT * step}"
            )
        return self


def discriminator_hinge(true: Sequence[torch.Tensor], rendered: Sequence[torch.Tensor]) -> torch.Tensor:
    """Loss of the discriminator, the mean over its outputs of images and of renders (Miyato et al. 2018, eq. 16).

    Each output is of any shape. 2 where it cannot tell them apart; 0 if all are beyond 1 and -1.
    """
    parts = [torch.relu(1 - a).mean() + torch.relu(1 + b).mean() for a, b in zip(true, rendered, strict=True)]
    return torch.stack(parts).mean()


def generator_hinge(rendered: Sequence[torch.Tensor]) -> torch.Tensor:
    """The decoder's term, from the discriminator's outputs of renders (Miyato et al. 2018, eq. 17)."""
    return -mean(rendered)


def mean(outputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean over outputs of their means."""
    return torch.stack([output.mean() for output in outputs]).mean()
