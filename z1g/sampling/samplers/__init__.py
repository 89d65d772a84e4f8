"""Samplers as slots: each is one of diffusers' schedulers with the settings the method needs."""

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
"""What `kind:` of a Sampler may name."""

__all__ = ["KINDS", "Ddim", "Ddpm", "DpmMultistep", "EulerAncestral", "Sampler", "UniPc"]
