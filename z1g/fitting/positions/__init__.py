"""Parametrizations of Gaussian positions for the fit's optimizer."""

from z1g.fitting.positions.base import Positions, Rays
from z1g.fitting.positions.depth_offset import DepthOffset
from z1g.fitting.positions.free import FreePositions

KINDS: tuple[type[Positions], ...] = (
    DepthOffset,
    FreePositions,
)
"""Values of `kind:` of a Positions."""

__all__ = ["KINDS", "DepthOffset", "FreePositions", "Positions", "Rays"]
