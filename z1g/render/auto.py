"""The default rasterizer: the fastest for the device of the splats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from z1g.core.needs import GPU, require_package
from z1g.render.base import Conventions, Rasterizer, RenderOutput
from z1g.render.cpu import Cpu
from z1g.render.gsplat import PACKAGE, Gsplat

if TYPE_CHECKING:
    import torch

    from z1g.geometry.camera import Cameras


class Auto(Rasterizer):
    """gsplat for splats on a GPU, the CPU rasterizer for splats on the CPU."""

    kind: Literal["auto"] = "auto"

    def check(self) -> None:
        if GPU.exists():
            require_package("", "gsplat", f"jobs with a GPU need it: {PACKAGE}", fatal=False)

    def conventions(self) -> Conventions:
        return Conventions()

    def render(self, gaussians: torch.Tensor, cameras: Cameras) -> RenderOutput:
        backend: Rasterizer = Gsplat() if gaussians.is_cuda else Cpu()
        return backend.render(gaussians, cameras)
