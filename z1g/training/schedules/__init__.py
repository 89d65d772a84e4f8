"""Learning-rate schedules as slots."""

from z1g.training.schedules.base import Schedule
from z1g.training.schedules.cosine import Constant, Cosine
from z1g.training.schedules.cosine_restarts import CosineRestarts
from z1g.training.schedules.one_cycle import OneCycle
from z1g.training.schedules.plateau import Plateau
from z1g.training.schedules.step import Step

KINDS: tuple[type[Schedule], ...] = (
    Constant,
    Cosine,
    CosineRestarts,
    OneCycle,
    Plateau,
    Step,
)
"""Kinds of `Schedule`."""

__all__ = ["KINDS", "Constant", "Cosine", "CosineRestarts", "OneCycle", "Plateau", "Schedule", "Step"]
