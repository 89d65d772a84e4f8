"""Samplers as slots: schedulers of diffusers with the settings of the method."""

from z1g.sampling.samplers.base import Sampler
from z1g.sampling.samplers.ddim import Ddim
from z1g.sampling.samplers.ddpm import Ddpm
from z1g.sampling.samplers.dpm_multistep import DpmMultistep
from z1g.sampling.samplers.euler_ancestral import EulerAncestral
from z1g.sampling.samplers.unipc import UniPc

KINDS: tuple[type[Sampler], ...] = (
    Ddim,
    Ddpm,
    DpmMultistep,
    EulerAncestral,
    UniPc,
)
"""Kinds of `Sampler`."""

__all__ = ["KINDS", "Ddim", "Ddpm", "DpmMultistep", "EulerAncestral", "Sampler", "UniPc"]
