"""Scale activations, from raw channels of the decoder to the standard deviations of a Gaussian."""

from z1g.representations.scale.base import ScaleActivation
from z1g.representations.scale.biased import BiasedExp, BiasedSoftplus
from z1g.representations.scale.softplus import Softplus

KINDS: tuple[type[ScaleActivation], ...] = (
    BiasedSoftplus,
    BiasedExp,
    Softplus,
)
"""Kinds of `ScaleActivation`."""

__all__ = ["KINDS", "BiasedExp", "BiasedSoftplus", "ScaleActivation", "Softplus"]
