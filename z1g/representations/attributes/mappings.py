"""How the attributes of Gaussians become color images in -1..1 and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from z1g.core.slots import Section
from z1g.gaussians.channels import MIN_ALPHA, Attribute, join, split

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional
else:
    from z1g.core.lazy import functional, torch

Bound = Annotated[float, Field(ge=-50, le=50)]
Map = Callable[["torch.Tensor"], "torch.Tensor"]
CHANNELS_AXIS = 2
"""Of splatter images [B,V,14,S,S] and of the images of an attribute [B,V,3,S,S]."""
TOLERANCE = 1e-5
"""A value is outside of a range if its image exceeds -1..1 by more than this, which rounding may cause."""


class Mappings(Section):
    """The transforms and ranges of the five attributes; what is outside a range is clipped.

    Source: the published method (arXiv 2501.05427). An attribute with one channel is copied to three, and their mean is
    taken on the way back.
    """

    position: float = Field(0.7, gt=0, le=100, description="positions are within ± this; normalized units")
    opacity: Literal["logit", "linear"] = Field("logit", description="transform of opacities; linear: 0..1 as it is")
    opacity_logits: tuple[Bound, Bound] = Field((-14.0, 9.0), description="range of the logits of opacities")
    scale: Literal["log", "linear"] = Field(
        "log", description="transform of scales; linear: from 0 to the largest of the range"
    )
    scale_logs: tuple[Bound, Bound] = Field((-10.0, -2.0), description="range of the natural logarithms of scales")
    rotation: Literal["axis_angle", "quaternion", "none"] = Field(
        "axis_angle",
        description="form of rotations. axis_angle: axis times angle in 0..π; quaternion: the vector part over 1 + the "
        "real part of the quaternion whose real part is positive (modified Rodrigues parameters), in ±1; none: no "
        "image, all Gaussians have the axes of the view-1 frame",
    )
    rotation_limit: float = Field(5.0, gt=0, le=100, description="components of axis times angle are within ± this")

    @model_validator(mode="after")
    def _rise(self) -> Mappings:
        for name in ("opacity_logits", "scale_logs"):
            low, high = getattr(self, name)
            if low >= high:
                raise ValueError(f"{name} {low:g} to {high:g} must rise")
        return self

    @property
    def names(self) -> tuple[Attribute, ...]:
        """The attributes that have an image, in the order of the channels."""
        rotation: tuple[Attribute, ...] = () if self.rotation == "none" else ("rotation",)
        return ("position", "opacity", "scale", *rotation, "rgb")

    def images(self, splats: torch.Tensor) -> torch.Tensor:
        """Images [B,A,V,3,S,S] in -1..1 of activated splatter images [B,V,14,S,S], clipped to the ranges."""
        return self.unclipped(splats).clamp(-1, 1)

    def unclipped(self, splats: torch.Tensor) -> torch.Tensor:
        """`images` that exceed -1..1 where values exceed the ranges; opacities of 0 and 1 are infinite as logits."""
        parts = split(splats, dim=CHANNELS_AXIS)
        maps = self._to_images()
        rows = [maps[name](parts[name]).expand(-1, -1, 3, -1, -1) for name in self.names]
        return torch.stack(rows, dim=1)

    def splats(self, images: torch.Tensor) -> torch.Tensor:
        """Activated splatter images [B,V,14,S,S] in float32 or wider from images [B,A,V,3,S,S], clipped to -1..1.

        The gradient passes through the clipping, which would otherwise leave what exceeds a range there.
        """
        images = images if images.dtype == torch.float64 else images.float()
        inside = images + (images.clamp(-1, 1) - images).detach()
        maps = self._to_attributes()
        parts: dict[str, torch.Tensor] = {
            name: maps[name](image) for name, image in zip(self.names, inside.unbind(dim=1), strict=True)
        }
        if "rotation" not in parts:
            parts["rotation"] = _identity(parts["opacity"])
        return join(parts, dim=CHANNELS_AXIS)

    def clipped(self, splats: torch.Tensor) -> dict[str, int]:
        """Number of Gaussians of splatter images [B,V,14,S,S] that are drawn, and of those of them that leave a range.

        `drawn` and one number for each attribute. Opacities below 1/255 draw nothing.
        """
        parts, maps = split(splats, dim=CHANNELS_AXIS), self._to_images()
        drawn = parts["opacity"] > MIN_ALPHA
        counts = {"drawn": int(drawn.sum())}
        for name in self.names:
            if name == "rotation" and self._has_all_rotations:
                counts[name] = 0  # their images take longer than all others
                continue
            outside = (maps[name](parts[name]).abs() > 1 + TOLERANCE).any(dim=CHANNELS_AXIS, keepdim=True)
            counts[name] = int((outside & drawn).sum())
        return counts

    def _to_images(self) -> dict[str, Map]:
        return {
            "position": lambda x: x / self.position,
            "opacity": lambda x: _to_range(torch.logit(x) if self.opacity == "logit" else x, *self._opacities),
            "scale": lambda x: _to_range(x.log() if self.scale == "log" else x, *self._scales),
            "rotation": lambda x: (
                axis_angles(x) / self.rotation_limit if self.rotation == "axis_angle" else rodrigues(x)
            ),
            "rgb": lambda x: _to_range(x, 0.0, 1.0),
        }

    def _to_attributes(self) -> dict[str, Map]:
        return {
            "position": lambda x: x * self.position,
            "opacity": self._to_opacity,
            "scale": self._to_scale,
            "rotation": lambda x: (
                of_axis_angles(x * self.rotation_limit) if self.rotation == "axis_angle" else of_rodrigues(x)
            ),
            "rgb": lambda x: _from_range(x, 0.0, 1.0),
        }

    def _to_opacity(self, image: torch.Tensor) -> torch.Tensor:
        value = _from_range(image.mean(dim=CHANNELS_AXIS, keepdim=True), *self._opacities)
        return torch.sigmoid(value) if self.opacity == "logit" else value

    def _to_scale(self, image: torch.Tensor) -> torch.Tensor:
        value = _from_range(image, *self._scales)
        return value.exp() if self.scale == "log" else value

    @property
    def _has_all_rotations(self) -> bool:
        return self.rotation == "quaternion" or self.rotation_limit >= math.pi

    @property
    def _opacities(self) -> tuple[float, float]:
        return self.opacity_logits if self.opacity == "logit" else (0.0, 1.0)

    @property
    def _scales(self) -> tuple[float, float]:
        return self.scale_logs if self.scale == "log" else (0.0, math.exp(self.scale_logs[1]))


def axis_angles(quaternions: torch.Tensor) -> torch.Tensor:
    """Rotation axis times angle in 0..π [B,V,3,S,S] of quaternions [B,V,4,S,S], w first."""
    real, vector = _positive(quaternions)
    length = torch.linalg.vector_norm(vector, dim=CHANNELS_AXIS, keepdim=True)
    # Where the length vanishes, so does the result, whatever its factor.
    vectors: torch.Tensor = vector * (2 * torch.atan2(length, real) / length.clamp(min=1e-12))
    return vectors


def of_axis_angles(vectors: torch.Tensor) -> torch.Tensor:
    """Unit quaternions [B,V,4,S,S], w first, of axes times angles [B,V,3,S,S]."""
    angle = vectors.square().sum(dim=CHANNELS_AXIS, keepdim=True).clamp(min=1e-20).sqrt()
    return torch.cat([torch.cos(angle / 2), 0.5 * torch.sinc(angle / (2 * math.pi)) * vectors], dim=CHANNELS_AXIS)


def rodrigues(quaternions: torch.Tensor) -> torch.Tensor:
    """Modified Rodrigues parameters [B,V,3,S,S] in the unit ball, of quaternions [B,V,4,S,S], w first.

    The vector part over 1 + w, for w ≥ 0 (Schaub & Junkins 1996): three numbers from which the fourth one follows
    without the loss of precision of a square root.
    """
    real, vector = _positive(quaternions)
    parameters: torch.Tensor = vector / (1 + real)
    return parameters


def of_rodrigues(parameters: torch.Tensor) -> torch.Tensor:
    """Inverse of `rodrigues`."""
    square = parameters.square().sum(dim=CHANNELS_AXIS, keepdim=True)
    quaternions: torch.Tensor = torch.cat([1 - square, 2 * parameters], dim=CHANNELS_AXIS) / (1 + square)
    return quaternions


def _positive(quaternions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Real and vector parts of the unit quaternions of the same rotations whose real part is not negative."""
    unit = functional.normalize(quaternions, dim=CHANNELS_AXIS)
    unit = torch.where(unit[:, :, :1] < 0, -unit, unit)
    return unit[:, :, :1], unit[:, :, 1:]


def _identity(like: torch.Tensor) -> torch.Tensor:
    """Quaternions [B,V,4,S,S] of no rotation, for images [B,V,1,S,S]."""
    return torch.cat([torch.ones_like(like), torch.zeros_like(like).expand(-1, -1, 3, -1, -1)], dim=CHANNELS_AXIS)


def _to_range(value: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Values of a range in -1..1."""
    return (value - low) * (2 / (high - low)) - 1


def _from_range(value: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Inverse of `_to_range`."""
    return low + (value + 1) * ((high - low) / 2)
