"""Slot family of rasterizers of Gaussians."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.core.slots import Section, Slot
from z1g.gaussians.channels import N_CHANNELS

if TYPE_CHECKING:
    import torch

    from z1g.geometry.camera import Cameras


@dataclass(frozen=True)
class RenderOutput:
    """Images of B objects from V cameras, differentiable in all attributes of the Gaussians.

    rgb: [B,V,3,H,W], premultiplied by alpha: black where nothing is drawn.
    alpha: [B,V,1,H,W] in 0..1.
    depth: [B,V,1,H,W], the blending-weighted sum of camera-space z, not divided by alpha.
    """

    rgb: torch.Tensor
    alpha: torch.Tensor
    depth: torch.Tensor

    def over(self, background: torch.Tensor | float) -> torch.Tensor:
        """The images [B,V,3,H,W] on a background color, a number or a tensor that broadcasts."""
        from z1g.render._over import over

        return over(self.rgb, self.alpha, background)


def require_shapes(gaussians: torch.Tensor, cameras: Cameras) -> None:
    """Raise ValueError unless Gaussians are [B,N,14] and poses [B,V,4,4]. Kernels would read other memory."""
    shape, poses = tuple(gaussians.shape), tuple(cameras.c2w.shape)
    if len(shape) != 3 or shape[2] != N_CHANNELS or len(poses) != 4 or poses[0] != shape[0] or poses[2:] != (4, 4):
        raise ValueError(
            f"Gaussians [B,N,{N_CHANNELS}] and poses [B,V,4,4] of the same B are needed, not {list(shape)} and "
            f"{list(poses)}"
        )


class Conventions(Section):
    """Conventions in which published rasterizers differ; the defaults are gsplat's.

    diff-gaussian-rasterization: near 0.2, alpha_cap 0.99, three_sigma, not normalized, pass.
    """

    near: float = Field(0.01, gt=0, le=100, description="near plane: nearer Gaussians are not drawn, normalized units")
    alpha_cap: float = Field(0.999, gt=0, lt=1, description="largest alpha of one Gaussian in one pixel")
    footprint: Literal["exact", "three_sigma"] = Field(
        "exact",
        description="pixels in which a Gaussian is drawn: all with an alpha of at least 1/255, or of these only the "
        "16-pixel tiles that a square of three standard deviations touches, which clips visibly",
    )
    normalize_rotation: bool = Field(True, description="normalize quaternions before use")
    cap_gradient: Literal["zero", "pass"] = Field(
        "zero", description="gradient at the alpha cap: zero, or as without a cap"
    )

    def conventions(self) -> Conventions:
        """The `Conventions` among the options of a rasterizer."""
        return Conventions(**{name: getattr(self, name) for name in Conventions.model_fields})


class Rasterizer(Slot):
    """Base of all rasterizers."""

    @abstractmethod
    def conventions(self) -> Conventions:
        """The conventions of this backend: `Reference` with the same options renders the same images."""

    @abstractmethod
    def render(self, gaussians: torch.Tensor, cameras: Cameras) -> RenderOutput:
        """Render activated Gaussians [B,N,14] (channels: `z1g.gaussians.channels`) from cameras with c2w [B,V,4,4].

        Poses are constants without gradient. Raises UserError if the backend's package or device is missing, and
        ValueError for other shapes.
        """
