"""The judge: every pixel against every Gaussian in plain torch. Slow, obvious, differentiable by autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.render.base import Conventions, Rasterizer, RenderOutput

if TYPE_CHECKING:
    import torch

    from z1g.geometry.camera import Cameras


class Reference(Conventions, Rasterizer):
    """float64 by default, on any device."""

    kind: Literal["reference"] = "reference"
    precision: Literal["float32", "float64"] = Field("float64", description="type in which it computes")

    def render(self, gaussians: torch.Tensor, cameras: Cameras) -> RenderOutput:
        from z1g.render._reference import draw

        return draw(gaussians, cameras, self, self.precision)
