"""The CPU rasterizer, compiled by numba."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Literal

from z1g.render.base import Conventions, Rasterizer, RenderOutput, require_shapes

if TYPE_CHECKING:
    import torch

    from z1g.geometry.camera import Cameras
else:
    from z1g.core.lazy import torch


class Cpu(Conventions, Rasterizer):
    """Fast on CPUs; computes in float32 for any input type. Without numba it falls back to slow plain torch."""

    kind: Literal["cpu"] = "cpu"

    def render(self, gaussians: torch.Tensor, cameras: Cameras) -> RenderOutput:
        require_shapes(gaussians, cameras)
        try:
            importlib.import_module("numba")
        except ImportError as error:
            return self._without_numba(gaussians, cameras, error)
        from z1g.render._blend import draw
        from z1g.render.compiled import wait

        wait()
        # Autocast would compute poses in half precision.
        with torch.autocast("cpu", enabled=False):
            output = draw(gaussians.float().cpu(), cameras.to("cpu"), self)
        return RenderOutput(output.rgb.to(gaussians), output.alpha.to(gaussians), output.depth.to(gaussians))

    def _without_numba(self, gaussians: torch.Tensor, cameras: Cameras, error: ImportError) -> RenderOutput:
        from z1g.render._reference import draw

        warnings.warn(f"numba cannot be imported ({error}): rendering in plain torch, many times slower", stacklevel=3)
        return draw(gaussians, cameras, self, "float32")
