"""Initialization from silhouettes, for data without depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.fitting.base import FitStart

if TYPE_CHECKING:
    import torch

    from z1g.data.scenes import Scene


class VisualHullStart(FitStart):
    """Discs where rays of the input views' pixels enter the visual hull of all silhouettes; concavities are filled."""

    kind: Literal["visual_hull"] = "visual_hull"
    radius: float = Field(0.55, gt=0, le=1, description="rays are searched this far in front of and behind the origin")
    samples: int = Field(64, ge=4, le=1024, description="samples along a ray, refined by bisection")
    threshold: float = Field(0.5, gt=0, lt=1, description="alpha from which a pixel belongs to the silhouette")
    footprint: float = Field(0.5, gt=0, le=3, description="standard deviation along the surface in pixel widths")
    thickness: float = Field(
        0.1, gt=0, le=1, description="standard deviation across the surface as a fraction of the footprint; 1: round"
    )
    opacity: float = Field(0.85, gt=0, lt=1, description="opacity of a covered pixel")
    sink: float = Field(
        1.0, ge=0, le=5, description="depth below the surface in standard deviations of the projected Gaussian"
    )

    def splats(self, scene: Scene, views: Sequence[int], size: int) -> torch.Tensor:
        from z1g.fitting._hull import hull_depth
        from z1g.fitting._start import Shape, from_depth

        depth = hull_depth(scene, views, size, self.radius, self.samples, self.threshold)
        return from_depth(scene, depth, size, Shape(self.footprint, self.thickness, self.opacity, self.sink))
