"""Unconstrained positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from z1g.fitting.positions.base import Positions, Rays

if TYPE_CHECKING:
    import torch


class FreePositions(Positions):
    """x, y and z are optimized directly, as in LGM."""

    kind: Literal["free"] = "free"

    def encode(self, position: torch.Tensor, rays: Rays) -> torch.Tensor:
        return position

    def decode(self, raw: torch.Tensor, rays: Rays) -> torch.Tensor:
        return raw.clamp(-1, 1)
