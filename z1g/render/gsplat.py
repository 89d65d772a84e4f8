"""gsplat, the default on a GPU; one call renders all objects and views."""

from __future__ import annotations

import importlib
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.core.errors import UserError
from z1g.core.locks import waiting
from z1g.core.needs import require_package
from z1g.gaussians.channels import split
from z1g.render.base import Conventions, Rasterizer, RenderOutput

if TYPE_CHECKING:
    import torch

    from z1g.geometry.camera import Cameras
else:
    from z1g.core.lazy import torch

PACKAGE = "pip install 'z1g[gpu]'"


class Gsplat(Rasterizer):
    """gsplat >= 1.5 on CUDA. Its kernels fix all `Conventions` except the near plane."""

    kind: Literal["gsplat"] = "gsplat"
    near: float = Field(0.01, gt=0, le=100, description="near plane: nearer Gaussians are not drawn, normalized units")

    def check(self) -> None:
        require_package("", "gsplat", PACKAGE)

    def conventions(self) -> Conventions:
        return Conventions(near=self.near)

    def render(self, gaussians: torch.Tensor, cameras: Cameras) -> RenderOutput:
        if not gaussians.is_cuda:
            raise UserError("render kind 'gsplat' needs a GPU; use {kind: cpu} or {kind: auto} here")
        try:
            from gsplat import rasterization
        except ImportError as error:
            raise UserError(f"render kind 'gsplat' needs the package gsplat: {PACKAGE}") from error
        from z1g.render.projection import finite

        compiled()
        parts = split(finite(gaussians.float(), dim=2)[0], dim=2)
        cameras = cameras.to(gaussians.device)
        # Autocast would compute poses in half precision.
        with torch.autocast("cuda", enabled=False):
            image, alpha, _ = rasterization(
                means=parts["position"],
                quats=parts["rotation"],
                scales=parts["scale"],
                opacities=parts["opacity"][..., 0],
                colors=parts["rgb"],
                viewmats=cameras.world_to_camera().float(),
                Ks=cameras.intrinsics().float(),
                width=cameras.width,
                height=cameras.height,
                near_plane=self.near,
                render_mode="RGB+D",
                packed=False,
            )
        image, alpha = image.movedim(-1, 2).to(gaussians.dtype), alpha.movedim(-1, 2).to(gaussians.dtype)
        return RenderOutput(image[:, :, :3], alpha, image[:, :, 3:4])


@cache
def compiled() -> None:
    """Import gsplat's kernels, which it compiles when they are used first: one process at a time on this machine.

    Jobs that start side by side would all compile, and each removes the unfinished files of the others.
    """
    from torch.utils.cpp_extension import get_default_build_root

    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    try:
        with waiting(folder / ".z1g-gsplat.lock"):
            importlib.import_module("gsplat.cuda._backend")
    except OSError:
        # Where nothing can be written, kernels that were installed compiled need no lock.
        importlib.import_module("gsplat.cuda._backend")
