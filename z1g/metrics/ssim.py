"""Structural similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from z1g.core.errors import UserError
from z1g.metrics.base import ImagePair, ViewMetric

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional
else:
    from z1g.core.lazy import functional, torch

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


class Ssim(ViewMetric):
    """Mean structural similarity with the original's Gaussian window."""

    kind: Literal["ssim"] = "ssim"
    label: ClassVar[str] = "SSIM"
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    reference: ClassVar[str] = "Wang et al., IEEE TIP 2004; Gaussian window 11, sigma 1.5, mean over colors"

    def compute(self, images: ImagePair) -> torch.Tensor:
        if min(images.rgb.shape[-2:]) < WINDOW:
            raise UserError(
                f"SSIM needs images of at least {WINDOW} pixels per side; increase data.renderer.resolution"
            )
        x, y = images.rgb.double(), images.rgb_true.double()
        if self.kind not in images.shared:
            images.shared[self.kind] = _mean_and_variance(y)
        (mean_x, var_x), (mean_y, var_y) = _mean_and_variance(x), images.shared[self.kind]
        covariance = _blur(x * y) - mean_x * mean_y
        # Equation 13 of the paper.
        top = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
        bottom = (mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2)
        score: torch.Tensor = (top / bottom).mean(dim=(1, 2, 3)).float()
        return score


def _mean_and_variance(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean = _blur(images)
    return mean, _blur(images * images) - mean**2


def _blur(images: torch.Tensor) -> torch.Tensor:
    """Convolve [B,C,H,W] with the Gaussian window, without padding."""
    offsets = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    channels = images.shape[1]
    column = weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    row = weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return functional.conv2d(functional.conv2d(images, column, groups=channels), row, groups=channels)
