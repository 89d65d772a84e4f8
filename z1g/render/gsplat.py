"""gsplat, the default on a GPU; one call renders all objects and views."""

from __future__ import annotations

import importlib
import os
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from z1g.core.errors import UserError
from z1g.core.locks import waiting
from z1g.core.needs import require_package
from z1g.render.base import Conventions, Rasterizer, RenderOutput, require_shapes

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
        require_shapes(gaussians, cameras)
        if not gaussians.is_cuda:
            raise UserError("render kind 'gsplat' needs a GPU; use {kind: cpu} or {kind: auto} here")
        from z1g.render._gsplat import draw

        package, cameras = _package(), cameras.to(gaussians.device)
        # Autocast would compute poses in half precision.
        single = torch.autocast("cuda", enabled=False) if torch.is_autocast_enabled("cuda") else nullcontext()
        with single:
            output = draw(package, gaussians.float(), cameras, self.near)
        dtype = gaussians.dtype
        if dtype == torch.float32:
            return output
        return RenderOutput(output.rgb.to(dtype), output.alpha.to(dtype), output.depth.to(dtype))


@cache
def _package() -> Any:
    """gsplat with its kernels."""
    try:
        import gsplat
    except ImportError as error:
        raise UserError(f"render kind 'gsplat' needs the package gsplat: {PACKAGE}") from error
    compiled()
    return gsplat


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
