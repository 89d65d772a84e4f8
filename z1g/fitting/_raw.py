"""Splatter images as unconstrained parameters for an optimizer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional
from torch import Tensor

from z1g.fitting.positions import Positions, Rays
from z1g.gaussians.channels import MIN_ALPHA, activate_rgb, join, split, to_gaussians, to_images
from z1g.geometry.camera import Cameras, pixel_rays

SCALE_UNIT = 0.1
"""Scale is 0.1·softplus(raw), as in LGM and the original."""


@dataclass
class RawSplats:
    """Parameters of B objects' Gaussians, M of the 6·S² of each.

    start: activated Gaussians [B,6·S²,14]; those that are not optimized keep these values. index: [B,M], the optimized
    ones; short rows are padded with 6·S², one past the last. parameters: raw values [B,M,K] by attribute.
    """

    start: Tensor
    index: Tensor
    rays: Rays
    positions: Positions
    rotation_norm: str
    parameters: dict[str, Tensor]

    @classmethod
    def build(
        cls, images: Tensor, inputs: Cameras, positions: Positions, rotation_norm: str, *, drop_invisible: bool
    ) -> RawSplats:
        """Build from activated splatter images [B,6,14,S,S] and the input views' cameras [B,6] at the same size.

        With `drop_invisible`, Gaussians that no rasterizer renders are left out: they have no gradient.
        """
        start = to_gaussians(images)
        index = _visible(start) if drop_invisible else torch.arange(start.shape[1], device=start.device)[None]
        index = index.expand(len(start), -1)
        parts = split(_gather(start, index), dim=2)
        rays = _rays(inputs, index)
        rgb = parts["rgb"].clamp(1e-3, 1 - 1e-3)
        softplus = (parts["scale"] / SCALE_UNIT).clamp(1e-5, 50)
        raw = {
            "position": positions.encode(parts["position"], rays),
            "opacity": torch.logit(parts["opacity"].clamp(1e-5, 1 - 1e-5)),
            "scale": softplus + torch.log(-torch.expm1(-softplus)),
            "rotation": parts["rotation"],
            "rgb": torch.atanh(2 * rgb - 1),
        }
        parameters = {name: value.detach().clone().requires_grad_(True) for name, value in raw.items()}
        return cls(start, index, rays, positions, rotation_norm, parameters)

    def gaussians(self) -> Tensor:
        """The optimized Gaussians [B,M,14], activated; padding is transparent."""
        raw = self.parameters
        # The original's quirk divides each component by its norm over all Gaussians, not each quaternion by its own.
        over = 2 if self.rotation_norm == "quaternion" else 1
        parts = activate(raw, over)
        parts["position"] = self.positions.decode(raw["position"], self.rays)
        parts["opacity"] = parts["opacity"] * (self.index < self.start.shape[1])[..., None]
        return join(parts, dim=2)

    def images(self, gaussians: Tensor) -> Tensor:
        """Splatter images [B,6,14,S,S] with these Gaussians [B,M,14]; other pixels have their initial values."""
        b, n, channels = self.start.shape
        padded = torch.cat([self.start, self.start.new_zeros(b, 1, channels)], dim=1)
        expanded_index = self.index[..., None].expand(-1, -1, channels)
        placed = padded.scatter(1, expanded_index, gaussians.to(padded.dtype))
        return to_images(placed[:, :n], round((n / 6) ** 0.5))

    def keep(self, mask: Tensor) -> RawSplats:
        """Only the objects of a mask [B], with detached parameters; the caller updates the optimizer."""
        rays = Rays(*(x[mask] for x in (self.rays.origins, self.rays.directions, self.rays.axes)))
        parameters = {name: value.detach()[mask].requires_grad_(True) for name, value in self.parameters.items()}
        return replace(self, start=self.start[mask], index=self.index[mask], rays=rays, parameters=parameters)


def activate(raw: dict[str, Tensor], over: int) -> dict[str, Tensor]:
    """Apply LGM's activations to raw attributes; quaternions are divided by their norm along dimension `over`."""
    return {
        "position": raw["position"].clamp(-1, 1),
        "opacity": torch.sigmoid(raw["opacity"]),
        "scale": SCALE_UNIT * functional.softplus(raw["scale"]),
        "rotation": functional.normalize(raw["rotation"], dim=over),
        "rgb": activate_rgb(raw["rgb"]),
    }


def _visible(start: Tensor) -> Tensor:
    """Ids [B,M] of those of Gaussians [B,N,14] that are rendered, padded with N to the largest number of an object."""
    n = start.shape[1]
    drawn = split(start, dim=2)["opacity"][..., 0] >= MIN_ALPHA
    max_visible = max(int(drawn.sum(dim=1).max()), 1)
    ids = torch.where(drawn, torch.arange(n, device=start.device), n)
    return ids.sort(dim=1).values[:, :max_visible]


def _gather(values: Tensor, index: Tensor) -> Tensor:
    """Rows [B,M,C] of values [B,N,C]; indices past the last are clamped to it."""
    safe = index.clamp(max=values.shape[1] - 1)[..., None]
    return values.gather(1, safe.expand(-1, -1, values.shape[2]))


def _rays(inputs: Cameras, index: Tensor) -> Rays:
    """Rays of the pixels of the Gaussians [B,M]."""
    origins, directions = (x.permute(0, 1, 3, 4, 2).flatten(1, 3) for x in pixel_rays(inputs))
    pixels = inputs.height * inputs.width
    axes = inputs.c2w[:, :, :3, :3].flatten(2).repeat_interleave(pixels, dim=1)
    return Rays(_gather(origins, index), _gather(directions, index), _gather(axes, index).unflatten(2, (3, 3)))
