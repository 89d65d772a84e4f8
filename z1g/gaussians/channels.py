"""The 14 channels of a splatter image, in the original's order, and the activations that produce them.

A *splatter image* is [14,S,S]: each pixel is one Gaussian. Stored splats are always *activated*: position in
normalized units (view-1 frame), opacity in 0..1, scale as standard deviations, rotation as a unit quaternion (w first),
rgb in 0..1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.core.slots import Section

if TYPE_CHECKING:
    import torch
else:
    from z1g.core.lazy import torch

CHANNELS: dict[str, slice] = {
    "position": slice(0, 3),
    "opacity": slice(3, 4),
    "scale": slice(4, 7),
    "rotation": slice(7, 11),
    "rgb": slice(11, 14),
}
N_CHANNELS = 14
MIN_ALPHA = 1 / 255
"""Rasterizers draw nothing below this alpha, so a Gaussian with a lower opacity gets no gradient."""
N_GEOMETRY = 11
"""Number of channels before the color, which the extra decoder head predicts."""

Attribute = Literal["position", "opacity", "scale", "rotation", "rgb"]


class SplatOptions(Section):
    """Shape and conventions of the splatter images."""

    size: int = Field(
        128, ge=4, le=4096, description="side of one splatter image in pixels; an object has 6·size² Gaussians"
    )


def split(splats: torch.Tensor, dim: int) -> dict[str, torch.Tensor]:
    """Views of the attributes, by name, of splats with 14 channels along `dim`."""
    # A single call, because its backward pass is one concatenation; five slices would sum five full-size gradients.
    parts = torch.split(splats, [c.stop - c.start for c in CHANNELS.values()], dim=dim)
    return dict(zip(CHANNELS, parts, strict=True))


def join(attributes: dict[str, torch.Tensor], dim: int) -> torch.Tensor:
    """Inverse of `split`."""
    return torch.cat([attributes[name] for name in CHANNELS], dim=dim)


def to_gaussians(images: torch.Tensor) -> torch.Tensor:
    """Splatter images [B,6,14,S,S] as a list of Gaussians [B,6·S·S,14], row-major, view by view."""
    return images.permute(0, 1, 3, 4, 2).flatten(1, 3)


def to_images(gaussians: torch.Tensor, size: int) -> torch.Tensor:
    """Inverse of `to_gaussians`: [B,6·S·S,14] -> [B,6,14,S,S]."""
    images: torch.Tensor = gaussians.unflatten(1, (-1, size, size)).permute(0, 1, 4, 2, 3)
    return images


def enlarged(images: torch.Tensor, side: int) -> torch.Tensor:
    """Resize splatter images [B,6,14,S,S] by nearest neighbor, for decoders larger than the fitted images."""
    nearest = torch.arange(side, device=images.device) * images.shape[-1] // side
    return images if images.shape[-1] == side else images[..., nearest, :][..., nearest]


def activate_rgb(x: torch.Tensor) -> torch.Tensor:
    """Color in 0..1 from an unbounded value: 0.5·tanh(x) + 0.5."""
    return 0.5 * torch.tanh(x) + 0.5
