"""Gaussians [B,N,14] as the contiguous tensors that gsplat reads, with one kernel each way where there is Triton.

Small images take as long as the kernels that are launched for them.
"""

from typing import Any, NamedTuple, cast

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

    position, scale: [B,N,3]. rotation: [B,N,4]. opacity: [B,N] and rgb: [B,N,3], without gradient. opacities: [B,V,N],
    the same for each camera, with gradient. colors: [B,V,N,4], which `colored` fills; the gradient of their first three
    channels is that of rgb.
    """

    position: Tensor
    opacity: Tensor
    scale: Tensor
    rotation: Tensor
    rgb: Tensor
    opacities: Tensor
    colors: Tensor


def separated(gaussians: Tensor, views: int) -> Separated:
    """Separate Gaussians [B,N,14] for `views` cameras of each object."""
    b, n = gaussians.shape[:2]
    # Not results of the function, which would make zeros as their gradients.
    opacity, rgb = gaussians.new_empty(b, n), gaussians.new_empty(b, n, 3)
    position, scale, rotation, opacities, colors = _Separate.apply(gaussians, opacity, rgb, views)
    return Separated(position, opacity, scale, rotation, rgb, opacities, colors)


def colored(part: Separated, depths: Tensor) -> Tensor:
    """Colors [B,V,N,4] for each camera: rgb, and depths [B,V,N], which are known after projection.

    These are `part.colors`, filled.
    """
    return cast(Tensor, _Colored.apply(part.colors, part.rgb, depths))


class _Colored(Function):
    """`colored`: each row is written once and as a whole, since parts of rows take as long as rows."""

    @staticmethod
    def forward(ctx: Any, colors: Tensor, rgb: Tensor, depths: Tensor) -> Tensor:
        ctx.mark_dirty(colors)
        b, views, n = depths.shape
        if fused(colors.device):
            kernels.color[(-(-n // ROWS), b * views)](rgb, depths.contiguous(), colors, n, views, ROWS=ROWS)
        else:
            colors[..., :3].copy_(rgb[:, None])
            colors[..., 3].copy_(depths)
        return colors

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        return gradient, None, gradient.select(3, 3)


class _Separate(Function):
    """`separated`; what is transparent is in no pixel, so its gradient is 0 without a mask."""

    @staticmethod
    def forward(_ctx: Any, gaussians: Tensor, opacity: Tensor, rgb: Tensor, views: int) -> tuple[Tensor, ...]:
        b, n = opacity.shape
        position, scale, rotation = (gaussians.new_empty(b, n, width) for width in (3, 3, 4))
        opacities, colors = gaussians.new_empty(b, views, n), gaussians.new_empty(b, views, n, 4)
        out = (position, opacity, scale, rotation, rgb, opacities)
        if fused(gaussians.device):
            kernels.separate[(-(-n // ROWS), b)](gaussians.contiguous(), *out, n, views, LARGEST=LARGEST, ROWS=ROWS)
        else:
            _separate(gaussians, Separated(*out, colors))
        return position, scale, rotation, opacities, colors

    @staticmethod
    @once_differentiable
    def backward(_ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        position, scale, rotation, opacities, colors = (gradient.contiguous() for gradient in gradients)
        b, views, n = opacities.shape
        if not fused(position.device):
            return _gather(position, scale, rotation, opacities, colors), None, None, None
        out = position.new_empty(b, n, N_CHANNELS)
        kernels.gather[(-(-n // ROWS), b)](position, scale, rotation, opacities, colors, out, n, views, ROWS=ROWS)
        return out, None, None, None


def _separate(gaussians: Tensor, out: Separated) -> None:
    """Like the kernel of this name: all but the colors."""
    parts = split(finite(gaussians, dim=2)[0], dim=2)
    for name in ("position", "scale", "rotation"):
        getattr(out, name).copy_(parts[name])
    out.opacity.copy_(parts["opacity"].squeeze(2))
    out.opacities.copy_(parts["opacity"].mT)
    out.rgb.copy_(parts["rgb"])


def _gather(position: Tensor, scale: Tensor, rotation: Tensor, opacities: Tensor, colors: Tensor) -> Tensor:
    """Like the kernel of this name."""
    parts = {"position": position, "scale": scale, "rotation": rotation}
    return join(parts | {"opacity": opacities.sum(1)[..., None], "rgb": colors[..., :3].sum(1)}, dim=2)
