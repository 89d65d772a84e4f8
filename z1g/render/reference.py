"""The reference rasterizer: every pixel and every Gaussian in plain torch. Slow, simple, differentiated by autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.render.base import Conventions, Rasterizer, RenderOutput, require_shapes

if TYPE_CHECKING:
    import torch

    from z1g.geometry.camera import Cameras


class Reference(Conventions, Rasterizer):
    """Plain torch on any device, in float64 by default."""

    kind: Literal["reference"] = "reference"
    precision: Literal["float32", "float64"] = Field("float64", description="type of the computation")

    def render(self, gaussians: torch.Tensor, cameras: Cameras) -> RenderOutput:
        require_shapes(gaussians, cameras)
        from z1g.render._reference import draw

        return draw(gaussians, cameras, self, self.precision)
