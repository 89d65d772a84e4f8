"""First guess from the renderer's own depth: every input pixel unprojected."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.camera import INPUT_VIEWS
from z1g.errors import UserError
from z1g.fitting import FitStart

if TYPE_CHECKING:
    import torch

    from z1g.data.scenes import Scene


class DepthStart(FitStart):
    """Position from depth, colour from the picture, scale from the pixel's footprint, opacity from alpha."""

    kind: Literal["depth"] = "depth"
    footprint: float = Field(0.6, gt=0, le=3, description="standard deviation of a Gaussian in pixel widths")
    opacity: float = Field(0.95, gt=0, lt=1, description="opacity of a covered pixel")

    def splats(self, scene: "Scene", size: int) -> "torch.Tensor":
        from z1g.fitting._start import from_depth

        if scene.depth is None:
            raise UserError(f"{scene.id} has no depth; use fit.start: {{kind: random_ball}} for this data source")
        return from_depth(scene, list(INPUT_VIEWS), size, self.footprint, self.opacity)
