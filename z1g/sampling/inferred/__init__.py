"""Sources of the codes at inference, as slots: the method itself, and sources that isolate its parts."""

from z1g.sampling.inferred.base import InferredCodes, Objects
from z1g.sampling.inferred.cache import TrueCodes
from z1g.sampling.inferred.diffusion import SampledCodes
from z1g.sampling.inferred.encoder import EncodedInputs
from z1g.sampling.inferred.one_step import OneStepCodes
from z1g.sampling.inferred.probe import NoisedCodes
from z1g.sampling.inferred.refined import RefinedCodes

KINDS: tuple[type[InferredCodes], ...] = (
    TrueCodes,
    SampledCodes,
    RefinedCodes,
    EncodedInputs,
    OneStepCodes,
    NoisedCodes,
)
"""Kinds of `InferredCodes`."""

__all__ = [
    "KINDS",
    "EncodedInputs",
    "InferredCodes",
    "NoisedCodes",
    "Objects",
    "OneStepCodes",
    "RefinedCodes",
    "SampledCodes",
    "TrueCodes",
]
