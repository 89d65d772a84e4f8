"""Losses on renders: mean squared errors of color and alpha."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from z1g.losses.base import Comparison, Loss

if TYPE_CHECKING:
    import torch


class RgbLoss(Loss):
    """Mean squared error of color."""

    kind: Literal["rgb"] = "rgb"

    def compute(self, pair: Comparison) -> torch.Tensor:
        if pair.rgb is None or pair.rgb_true is None:
            raise ValueError("loss 'rgb' needs renders")
        return (pair.rgb - pair.rgb_true).square().mean()


class AlphaLoss(Loss):
    """Mean squared error of alpha."""

    kind: Literal["alpha"] = "alpha"

    def compute(self, pair: Comparison) -> torch.Tensor:
        if pair.alpha is None or pair.alpha_true is None:
            raise ValueError("loss 'alpha' needs renders")
        return (pair.alpha - pair.alpha_true).square().mean()
