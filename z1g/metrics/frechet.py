"""Fréchet distance between the features of renders and of the ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from z1g.metrics.base import SetMetric

if TYPE_CHECKING:
    import torch
else:
    from z1g.core.lazy import torch


class FdEffLite0(SetMetric):
    """Fréchet distance of EfficientNet-Lite0's pooled features. Values are not comparable with FID."""

    kind: Literal["fd_efflite0"] = "fd_efflite0"
    label: ClassVar[str] = "FD-EffLite0"
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = False
    reference: ClassVar[str] = (
        "Fréchet distance (Heusel et al., NeurIPS 2017) of EfficientNet-Lite0's 1280 pooled features (ImageNet, 224²); "
        "not FID. Biased upwards below a few thousand images: compare only sets of equal size"
    )

    def features(self, rgb: torch.Tensor) -> torch.Tensor:
        from z1g.networks.image_features import efficientnet_lite0

        features: torch.Tensor = efficientnet_lite0()(rgb)
        return features

    def distance(self, features: torch.Tensor, features_true: torch.Tensor) -> float:
        return frechet_distance(features, features_true)


def frechet_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Fréchet distance (Dowson & Landau 1982) of Gaussians fitted to features [N,F] and [M,F], N and M at least 2.

    |m₁ − m₂|² + tr(C₁ + C₂ − 2 (C₁C₂)^½). With C = AᵀA the last trace is the nuclear norm of A₁A₂ᵀ, which needs no
    matrix square root and is exact for fewer images than features.
    """
    means, factors = [], []
    for features in (first.double().cpu(), second.double().cpu()):
        if len(features) < 2:
            raise ValueError("a covariance needs two images")
        means.append(features.mean(dim=0))
        factor = (features - means[-1]) / (len(features) - 1) ** 0.5
        factors.append(torch.linalg.qr(factor, mode="r").R if len(factor) > factor.shape[1] else factor)
    shift = (means[0] - means[1]).square().sum()
    spread = sum(factor.square().sum() for factor in factors)
    overlap = torch.linalg.matrix_norm(factors[0] @ factors[1].T, "nuc")
    return max(0.0, float(shift + spread - 2 * overlap))
