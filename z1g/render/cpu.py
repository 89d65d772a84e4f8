"""The CPU rasterizer: torch projects, numba blends."""

import importlib
import warnings
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.render import Rasterizer, RenderOutput

if TYPE_CHECKING:
    import torch

    from z1g.camera import Cameras
else:
    from z1g.lazy import torch


class Cpu(Rasterizer):
    """Fast on CPUs; computes in float32 whatever the input's type. Without numba a slow plain path serves."""

    kind: Literal["cpu"] = "cpu"
    near: float = Field(0.01, gt=0, description="Gaussians nearer than this are not drawn, normalised units")
    alpha_cap: float = Field(0.999, gt=0, lt=1, description="largest alpha of one Gaussian in one pixel")

    def render(self, gaussians: "torch.Tensor", cameras: "Cameras") -> RenderOutput:
        try:
            importlib.import_module("numba")
        except ImportError as error:
            return self._without_numba(gaussians, cameras, error)
        from z1g.render._blend import blend
        from z1g.render._project import project

        # Autocast would compute poses and positions in half precision.
        with torch.autocast("cpu", enabled=False):
            projected = project(gaussians.float().cpu(), cameras.to("cpu"), self.near)
            picture = blend(projected, cameras.height, cameras.width, self.alpha_cap).to(gaussians)
        return RenderOutput(picture[:, :, :3], picture[:, :, 3:4], picture[:, :, 4:5])

    def _without_numba(self, gaussians: "torch.Tensor", cameras: "Cameras", error: ImportError) -> RenderOutput:
        from z1g.render._reference import draw

        warnings.warn(f"numba does not import ({error}): rendering in plain torch, many times slower", stacklevel=3)
        return draw(gaussians, cameras, self.near, self.alpha_cap, "float32")
