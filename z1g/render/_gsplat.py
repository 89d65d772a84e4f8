"""One call of gsplat, and what it needs around it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from z1g.gaussians.channels import CHANNELS, split
from z1g.geometry.camera import Cameras
from z1g.render.base import RenderOutput
from z1g.render.projection import all_finite, transparent


def draw(rasterization: Callable[..., Any], gaussians: Tensor, cameras: Cameras, near: float) -> RenderOutput:
    """Render Gaussians [B,N,14] from [B,V] cameras, both float32 on one device, with gsplat's `rasterization`."""
    parts = dict(zip(CHANNELS, _Separated.apply(gaussians), strict=True))
    image, alpha, _ = rasterization(
        means=parts["position"],
        quats=parts["rotation"],
        scales=parts["scale"],
        opacities=parts["opacity"].squeeze(2),
        colors=parts["rgb"],
        viewmats=cameras.world_to_camera().float(),
        Ks=cameras.intrinsics().float(),
        width=cameras.width,
        height=cameras.height,
        near_plane=near,
        render_mode="RGB+D",
        packed=False,
    )
    # In gsplat's layout, and not in ours: the image's gradient is then put together once, as gsplat reads it. Slices of
    # the permuted image would each give one of its full size, to be added and copied.
    rgb, depth = image.split([3, 1], dim=-1)
    return RenderOutput(rgb.movedim(-1, 2), alpha.movedim(-1, 2), depth.movedim(-1, 2))


class _Separated(torch.autograd.Function):
    """The attributes of Gaussians [B,N,14], contiguous as gsplat needs them; transparent where one is not finite.

    One function with a gradient of its own, which is a single concatenation: what is transparent is in no pixel, so its
    gradient is 0 without a mask. Small images take as long as the kernels that are launched for them.
    """

    @staticmethod
    def forward(_ctx: Any, gaussians: Tensor) -> tuple[Tensor, ...]:
        usable = all_finite(gaussians, dim=2).unsqueeze(2)
        parts = split(gaussians, dim=2)
        blank = split(transparent(gaussians.dtype, gaussians.device), dim=0)
        return tuple(torch.where(usable, parts[name], blank[name]) for name in CHANNELS)

    @staticmethod
    @once_differentiable
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        return torch.cat(gradients, dim=2)
