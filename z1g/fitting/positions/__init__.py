"""What the fit's optimizer moves where a Gaussian's position is concerned."""

from z1g.fitting.positions.base import Positions, Rays
from z1g.fitting.positions.depth_offset import DepthOffset
from z1g.fitting.positions.free import FreePositions

KINDS: tuple[type[Positions], ...] = (
    DepthOffset,
    FreePositions,
)
"""What `kind:` of a Positions may name."""

__all__ = ["KINDS", "DepthOffset", "FreePositions", "Positions", "Rays"]
