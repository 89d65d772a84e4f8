"""Fitting splatter images to the renders of an object; the initialization is a slot."""

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
"""Values of `kind:` of a FitStart."""

__all__ = ["KINDS", "DepthStart", "FitStart", "LgmStart", "RandomBallStart", "VisualHullStart"]
