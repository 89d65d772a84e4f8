"""Splatter images as unconstrained parameters that an optimizer may move."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional
from torch import Tensor

from z1g.fitting.positions import Positions, Rays
from z1g.gaussians.channels import MIN_ALPHA, activate_rgb, join, split, to_gaussians, to_images
from z1g.geometry.camera import Cameras, pixel_rays

SCALE_UNIT = 0.1
"""Scale is 0.1·softplus(raw), as in LGM and the seed."""


@dataclass
class RawSplats:
    """Parameters of B objects' Gaussians, M of the 6·S² of each.

    start: activated Gaussians [B,6·S²,14]; what is not optimized keeps these values. index: [B,M], which ones are
    optimized; short rows are padded with 6·S², one past the last. parameters: raw [B,M,K] by attribute.
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
        """From activated splatter images [B,6,14,S,S] and the inputs' cameras [B,6] at that size.

        With `drop_invisible`, Gaussians that no rasterizer draws are left out: they would never move.
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
        """Activated Gaussians [B,M,14] that are optimized; padding is transparent."""
        raw = self.parameters
        # The original's quirk divides each component by its norm over all Gaussians, not each quaternion by its own.
        over = 2 if self.rotation_norm == "quaternion" else 1
        parts = activate(raw, over)
        parts["position"] = self.positions.decode(raw["position"], self.rays)
        parts["opacity"] = parts["opacity"] * (self.index < self.start.shape[1])[..., None]
        return join(parts, dim=2)

    def images(self, gaussians: Tensor) -> Tensor:
        """Splatter images [B,6,14,S,S] with these Gaussians [B,M,14] in their pixels, the rest as at the start."""
        b, n, channels = self.start.shape
        everything = torch.cat([self.start, self.start.new_zeros(b, 1, channels)], dim=1)
        where = self.index[..., None].expand(-1, -1, channels)
        placed = everything.scatter(1, where, gaussians.to(everything.dtype))
        return to_images(placed[:, :n], round((n / 6) ** 0.5))

    def keep(self, which: Tensor) -> RawSplats:
        """The objects [B] of a mask only, without gradients; the caller moves the optimizer along."""
        rays = Rays(*(x[which] for x in (self.rays.origins, self.rays.directions, self.rays.axes)))
        parameters = {name: value.detach()[which].requires_grad_(True) for name, value in self.parameters.items()}
        return replace(self, start=self.start[which], index=self.index[which], rays=rays, parameters=parameters)


def activate(raw: dict[str, Tensor], over: int) -> dict[str, Tensor]:
    """LGM's activations of raw attributes; quaternions are divided by their norm along dimension `over`."""
    return {
        "position": raw["position"].clamp(-1, 1),
        "opacity": torch.sigmoid(raw["opacity"]),
        "scale": SCALE_UNIT * functional.softplus(raw["scale"]),
        "rotation": functional.normalize(raw["rotation"], dim=over),
        "rgb": activate_rgb(raw["rgb"]),
    }


def _visible(start: Tensor) -> Tensor:
    """Ids [B,M] of the Gaussians of [B,N,14] that may be drawn, padded with N to the largest number of an object."""
    n = start.shape[1]
    drawn = split(start, dim=2)["opacity"][..., 0] >= MIN_ALPHA
    most = max(int(drawn.sum(dim=1).max()), 1)
    ids = torch.where(drawn, torch.arange(n, device=start.device), n)
    return ids.sort(dim=1).values[:, :most]


def _gather(values: Tensor, index: Tensor) -> Tensor:
    """Rows [B,M,C] of values [B,N,C]; one past the last gives the last."""
    safe = index.clamp(max=values.shape[1] - 1)[..., None]
    return values.gather(1, safe.expand(-1, -1, values.shape[2]))


def _rays(inputs: Cameras, index: Tensor) -> Rays:
    """Of the pixels that [B,M] Gaussians belong to."""
    origins, directions = (x.permute(0, 1, 3, 4, 2).flatten(1, 3) for x in pixel_rays(inputs))
    pixels = inputs.height * inputs.width
    axes = inputs.c2w[:, :, :3, :3].flatten(2).repeat_interleave(pixels, dim=1)
    return Rays(_gather(origins, index), _gather(directions, index), _gather(axes, index).unflatten(2, (3, 3)))
