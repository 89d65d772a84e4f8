"""Sources of latent codes, as slots."""

from z1g.codes.base import CodeSource
from z1g.codes.cache import CachedCodes
from z1g.codes.diffusion import DiffusionCodes
from z1g.codes.encoder import EncoderCodes
from z1g.codes.optimized import OptimizedCodes

KINDS: tuple[type[CodeSource], ...] = (
    CachedCodes,
    DiffusionCodes,
    EncoderCodes,
    OptimizedCodes,
)
"""Kinds of `CodeSource`."""

__all__ = ["KINDS", "CachedCodes", "CodeSource", "DiffusionCodes", "EncoderCodes", "OptimizedCodes"]
