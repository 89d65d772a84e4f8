"""Where latent codes come from, as slots."""

from z1g.codes.base import CodeSource
from z1g.codes.cache import CachedCodes
from z1g.codes.diffusion import DiffusionCodes
from z1g.codes.encoder import EncoderCodes
from z1g.codes.optimized import OptimisedCodes

KINDS: tuple[type[CodeSource], ...] = (
    CachedCodes,
    DiffusionCodes,
    EncoderCodes,
    OptimisedCodes,
)
"""What `kind:` of a CodeSource may name."""

__all__ = ["KINDS", "CachedCodes", "CodeSource", "DiffusionCodes", "EncoderCodes", "OptimisedCodes"]
