"""Positions as depth along the pixel's ray and an offset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.fitting.positions.base import Positions, Rays

if TYPE_CHECKING:
    import torch
else:
    from z1g.core.lazy import torch


class DepthOffset(Positions):
    """Planar depth along the pixel's ray and an offset along the camera's axes; the original's 15-channel variant."""

    kind: Literal["depth_offset"] = "depth_offset"
    lateral: bool = Field(
        True,
        description="allow offsets from the pixel's ray; false: Gaussians stay on their rays (always_zero_xy_offset)",
    )

    def encode(self, position: torch.Tensor, rays: Rays) -> torch.Tensor:
        local = (rays.axes.transpose(-1, -2) @ (position - rays.origins)[..., None])[..., 0]
        depth = local[..., 2:]
        if not self.lateral:
            return depth
        ray = (rays.axes.transpose(-1, -2) @ rays.directions[..., None])[..., 0]
        return torch.cat([depth, local - depth * ray], dim=-1)

    def decode(self, raw: torch.Tensor, rays: Rays) -> torch.Tensor:
        position = rays.origins + raw[..., :1] * rays.directions
        if self.lateral:
            position = position + (rays.axes @ raw[..., 1:, None])[..., 0]
        return position.clamp(-1, 1)
