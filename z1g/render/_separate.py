"""Gaussians [B,N,14] as the contiguous tensors that gsplat reads, with one kernel each way where there is Triton.

Small images take as long as the kernels that are launched for them.
"""

from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from z1g.core.lazy import LazyModule
from z1g.gaussians.channels import N_CHANNELS, join, split
from z1g.render._fused import fused
from z1g.render.projection import LARGEST, finite

# Triton is installed with GPU builds of torch.
kernels: Any = LazyModule("z1g.render._separate_kernels")

ROWS = 64
"""Number of Gaussians per program."""


class Separated(NamedTuple):
    """Attributes of Gaussians, contiguous; transparent where a channel is not finite.

    position, scale: [B,N,3]. rotation: [B,N,4]. opacity: [B,N], without gradient. opacities: [B,V,N], the same for each
    camera, with gradient. colors: [B,V,N,4] for each camera; the fourth channel is not set and gets no gradient.
    """

    position: Tensor
    opacity: Tensor
    scale: Tensor
    rotation: Tensor
    opacities: Tensor
    colors: Tensor


def separated(gaussians: Tensor, views: int) -> Separated:
    """Separate Gaussians [B,N,14] for `views` cameras of each object."""
    # Not a result of the function, which would make zeros as its gradient.
    opacity = gaussians.new_empty(gaussians.shape[:2])
    position, scale, rotation, opacities, colors = _Separate.apply(gaussians, opacity, views)
    return Separated(position, opacity, scale, rotation, opacities, colors)


class WithDepth(Function):
    """Colors [B,V,N,4] with depths [B,V,N] as their fourth channel, in place."""

    @staticmethod
    def forward(ctx: Any, colors: Tensor, depths: Tensor) -> Tensor:
        ctx.mark_dirty(colors)
        colors.select(3, 3).copy_(depths)
        return colors

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient.select(3, 3)


class _Separate(Function):
    """`separated`; what is transparent is in no pixel, so its gradient is 0 without a mask."""

    @staticmethod
    def forward(_ctx: Any, gaussians: Tensor, opacity: Tensor, views: int) -> tuple[Tensor, ...]:
        b, n = opacity.shape
        position, scale, rotation = (gaussians.new_empty(b, n, width) for width in (3, 3, 4))
        opacities, colors = gaussians.new_empty(b, views, n), gaussians.new_empty(b, views, n, 4)
        out = Separated(position, opacity, scale, rotation, opacities, colors)
        if fused(gaussians.device):
            kernels.separate[(-(-n // ROWS), b)](gaussians.contiguous(), *out, n, views, LARGEST=LARGEST, ROWS=ROWS)
        else:
            _separate(gaussians, out)
        return position, scale, rotation, opacities, colors

    @staticmethod
    @once_differentiable
    def backward(_ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        position, scale, rotation, opacities, colors = (gradient.contiguous() for gradient in gradients)
        b, views, n = opacities.shape
        if not fused(position.device):
            return _gather(position, scale, rotation, opacities, colors), None, None
        out = position.new_empty(b, n, N_CHANNELS)
        kernels.gather[(-(-n // ROWS), b)](position, scale, rotation, opacities, colors, out, n, views, ROWS=ROWS)
        return out, None, None


def _separate(gaussians: Tensor, out: Separated) -> None:
    """Like the kernel of this name."""
    parts = split(finite(gaussians, dim=2)[0], dim=2)
    for name in ("position", "scale", "rotation"):
        getattr(out, name).copy_(parts[name])
    out.opacity.copy_(parts["opacity"].squeeze(2))
    out.opacities.copy_(parts["opacity"].mT)
    out.colors[..., :3].copy_(parts["rgb"][:, None])


def _gather(position: Tensor, scale: Tensor, rotation: Tensor, opacities: Tensor, colors: Tensor) -> Tensor:
    """Like the kernel of this name."""
    parts = {"position": position, "scale": scale, "rotation": rotation}
    return join(parts | {"opacity": opacities.sum(1)[..., None], "rgb": colors[..., :3].sum(1)}, dim=2)
