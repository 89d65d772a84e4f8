"""How often training visits each timestep, as slots."""

from z1g.networks.timesteps.base import Timesteps
from z1g.networks.timesteps.logit_normal import LogitNormal
from z1g.networks.timesteps.uniform import Uniform

KINDS: tuple[type[Timesteps], ...] = (
    LogitNormal,
    Uniform,
)
"""What `kind:` of a Timesteps may name."""

__all__ = ["KINDS", "LogitNormal", "Timesteps", "Uniform"]
