"""Slot family of the distributions of training timesteps."""

from z1g.networks.timesteps.base import Timesteps
from z1g.networks.timesteps.logit_normal import LogitNormal
from z1g.networks.timesteps.uniform import Uniform

KINDS: tuple[type[Timesteps], ...] = (
    LogitNormal,
    Uniform,
)
"""All kinds of Timesteps."""

__all__ = ["KINDS", "LogitNormal", "Timesteps", "Uniform"]
