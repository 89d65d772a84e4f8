"""Splat rasterizers behind one contract."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from z1g.config.slot import Slot

if TYPE_CHECKING:
    import torch

    from z1g.camera import Cameras


@dataclass(frozen=True)
class RenderOutput:
    """Pictures of B objects from V cameras, differentiable in all attributes of the Gaussians.

    rgb: [B,V,3,H,W], premultiplied by alpha: black where nothing is.
    alpha: [B,V,1,H,W] in 0..1.
    depth: [B,V,1,H,W], the blending-weighted sum of camera-space z, not divided by alpha.
    """

    rgb: "torch.Tensor"
    alpha: "torch.Tensor"
    depth: "torch.Tensor"

    def over(self, background: "torch.Tensor | float") -> "torch.Tensor":
        """The pictures [B,V,3,H,W] on a background colour: a number or a tensor that broadcasts."""
        return self.rgb + (1 - self.alpha) * background


class Rasterizer(Slot):
    """A backend. `render` is its only contract."""

    @abstractmethod
    def render(self, gaussians: "torch.Tensor", cameras: "Cameras") -> RenderOutput:
        """Draw activated Gaussians [B,N,14] (channel order of `z1g.splat`) from cameras with c2w [B,V,4,4].

        Raises UserError where the backend's package or device is missing.
        """
