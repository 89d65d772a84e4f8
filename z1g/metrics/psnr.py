"""Peak signal-to-noise ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from z1g.metrics.base import ImagePair, ViewMetric

if TYPE_CHECKING:
    import torch
else:
    from z1g.core.lazy import torch

CAP_DB = 100.0
"""Value of identical images, so that means are finite."""


class Psnr(ViewMetric):
    """-10·log10 of the mean squared error of color on white."""

    kind: Literal["psnr"] = "psnr"
    label: ClassVar[str] = "PSNR"
    unit: ClassVar[str] = "dB"
    higher_is_better: ClassVar[bool] = True
    reference: ClassVar[str] = "10·log10(1/MSE), colors in 0..1 on white, capped at 100 dB"

    def compute(self, images: ImagePair) -> torch.Tensor:
        error = (images.rgb - images.rgb_true).double().square().mean(dim=(1, 2, 3))
        return (-10 * torch.log10(error.clamp(min=10 ** (-CAP_DB / 10)))).float()

    def pooled(self, images: ImagePair) -> float:
        """Of the mean squared error of all views: never above the mean over views, by Jensen's inequality."""
        error = (images.rgb - images.rgb_true).double().square().mean()
        return float(-10 * torch.log10(error.clamp(min=10 ** (-CAP_DB / 10))))
