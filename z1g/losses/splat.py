"""Loss on the attributes of splatter images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from z1g.core.slots import MAX_COUNT, Section
from z1g.gaussians.channels import Attribute, split
from z1g.losses.base import Comparison, Loss

if TYPE_CHECKING:
    import torch
else:
    from z1g.core.lazy import torch

LOG_EPSILON = 1e-8
"""Added before logarithms, as in the scales of the original's files."""
LOGARITHMIC = ("opacity", "scale")
"""Attributes that can be compared as logarithms."""


class AttributeWeights(Section):
    """Weight of each attribute's mean squared error."""

    position: float = Field(1.0, ge=0, le=1e6, description="normalized units squared")
    opacity: float = Field(1e-3, ge=0, le=1e6, description="values in 0..1")
    scale: float = Field(1e-3, ge=0, le=1e6, description="normalized units squared, or log-scales")
    rotation: float = Field(1.0, ge=0, le=1e6, description="quaternion components")
    rgb: float = Field(1.0, ge=0, le=1e6, description="values in 0..1")


class SplatLoss(Loss):
    """Weighted sum of the attributes' mean squared errors against the fitted splats."""

    kind: Literal["splat"] = "splat"
    attributes: AttributeWeights = AttributeWeights()
    log: tuple[Attribute, ...] = Field((), description="attributes to compare as logarithms: opacity, scale or both")
    opacity_weighted: bool = Field(
        False,
        description="weight a pixel's errors, except opacity's, by its true opacity: invisible Gaussians are arbitrary",
    )
    sign_invariant_rotation: bool = Field(True, description="compare with q or -q, whichever is closer")
    every: int | None = Field(
        1,
        ge=1,
        le=MAX_COUNT,
        description="use the term in every n-th epoch only, beginning with the first; null: in none",
    )
    warmup_passes: int = Field(0, ge=0, le=MAX_COUNT, description="also use the term in all of the first n epochs")

    @field_validator("log")
    @classmethod
    def _require_positive(cls, value: tuple[Attribute, ...]) -> tuple[Attribute, ...]:
        if wrong := [name for name in value if name not in LOGARITHMIC]:
            raise ValueError(f"only {' and '.join(LOGARITHMIC)} can be compared as logarithms, not {', '.join(wrong)}")
        return value

    def compute(self, pair: Comparison) -> torch.Tensor:
        if pair.splats is None or pair.splats_true is None:
            raise ValueError("loss 'splat' needs fitted splats")
        predicted, truth = split(pair.splats, dim=2), split(pair.splats_true, dim=2)
        # Normalized by each object's mean, so that a loss does not depend on the other objects of the batch.
        visible = truth["opacity"] / truth["opacity"].mean(dim=(1, 2, 3, 4), keepdim=True).clamp(min=1e-6)
        total = pair.splats.new_zeros(len(pair.splats))
        for name, weight in self.attributes.model_dump().items():
            if weight == 0:
                continue
            error = self._squared(name, predicted[name], truth[name])
            if self.opacity_weighted and name != "opacity":
                error = error * visible
            total = total + weight * error.flatten(1).mean(dim=1)
        return total.mean() if pair.epoch is None else (total * self.is_active(pair.epoch)).mean()

    def is_active(self, epoch: torch.Tensor) -> torch.Tensor:
        """Whether the term is used in the given epochs [B]."""
        first = epoch < self.warmup_passes
        return first if self.every is None else first | (epoch % self.every == 0)

    def _squared(self, name: str, predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        if name in self.log:
            predicted, truth = ((x + LOG_EPSILON).log() for x in (predicted, truth))
        if name == "rotation" and self.sign_invariant_rotation:
            same = (predicted * truth).sum(dim=2, keepdim=True) >= 0
            truth = torch.where(same, truth, -truth)
        return (predicted - truth).square()
