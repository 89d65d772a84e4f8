"""Intersection over union of silhouettes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from z1g.metrics.base import ImagePair, ViewMetric

if TYPE_CHECKING:
    import torch
else:
    from z1g.core.lazy import torch


class AlphaIou(ViewMetric):
    """Intersection over union of thresholded alpha; 1 where both are empty."""

    kind: Literal["alpha_iou"] = "alpha_iou"
    threshold: float = Field(0.5, gt=0, lt=1, description="least alpha of a covered pixel")
    label: ClassVar[str] = "alpha IoU"
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    reference: ClassVar[str] = "intersection over union of the silhouettes (Jaccard index)"

    def compute(self, images: ImagePair) -> torch.Tensor:
        first, second = images.alpha >= self.threshold, images.alpha_true >= self.threshold
        both = (first & second).sum(dim=(1, 2, 3))
        either = (first | second).sum(dim=(1, 2, 3))
        return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both, dtype=torch.float32))
