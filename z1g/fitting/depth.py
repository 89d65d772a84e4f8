"""Initialization from rendered depth: every input pixel is unprojected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.core.errors import UserError
from z1g.fitting.base import FitStart

if TYPE_CHECKING:
    import torch

    from z1g.data.scenes import Scene


class DepthStart(FitStart):
    """Discs of a pixel's size on the surface, with positions from depth and colors from the image."""

    kind: Literal["depth"] = "depth"
    footprint: float = Field(0.5, gt=0, le=3, description="standard deviation along the surface in pixel widths")
    thickness: float = Field(
        0.1, gt=0, le=1, description="standard deviation across the surface as a fraction of the footprint; 1: round"
    )
    opacity: float = Field(0.85, gt=0, lt=1, description="opacity of a covered pixel")
    sink: float = Field(
        1.0, ge=0, le=5, description="depth below the surface in standard deviations of the projected Gaussian"
    )

    def splats(self, scene: Scene, views: Sequence[int], size: int) -> torch.Tensor:
        from z1g.fitting._start import Shape, from_depth

        if scene.depth is None:
            raise UserError(
                f"{scene.id} has no depth; use fit.start: {{kind: visual_hull}} or {{kind: random_ball}} for this data "
                "source"
            )
        return from_depth(scene, scene.depth, size, Shape(self.footprint, self.thickness, self.opacity, self.sink))
