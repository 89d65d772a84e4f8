"""Fitting splatter images to the renders of one object; the first guess is a slot."""

from z1g.fitting.base import FitStart
from z1g.fitting.depth import DepthStart
from z1g.fitting.lgm import LgmStart
from z1g.fitting.random_ball import RandomBallStart
from z1g.fitting.visual_hull import VisualHullStart

KINDS: tuple[type[FitStart], ...] = (
    DepthStart,
    LgmStart,
    RandomBallStart,
    VisualHullStart,
)
"""What `kind:` of a FitStart may name."""

__all__ = ["KINDS", "DepthStart", "FitStart", "LgmStart", "RandomBallStart", "VisualHullStart"]
