"""Initialization without depth: Gaussians at random positions in a ball."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.fitting.base import FitStart

if TYPE_CHECKING:
    import torch

    from z1g.data.scenes import Scene


class RandomBallStart(FitStart):
    """Gray, transparent Gaussians, uniformly distributed in a ball."""

    kind: Literal["random_ball"] = "random_ball"
    radius: float = Field(0.4, gt=0, le=1, description="radius of the ball, normalized units")
    opacity: float = Field(0.1, gt=0, lt=1, description="opacity of every Gaussian")

    def splats(self, scene: Scene, views: Sequence[int], size: int) -> torch.Tensor:
        from z1g.fitting._start import random_ball

        return random_ball(scene, size, self.radius, self.opacity)
