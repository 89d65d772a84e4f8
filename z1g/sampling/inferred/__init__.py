"""Where the codes of inference come from, as slots: the method itself, and what tells its parts apart."""

from z1g.sampling.inferred.base import InferredCodes, Objects
from z1g.sampling.inferred.cache import TrueCodes
from z1g.sampling.inferred.diffusion import SampledCodes
from z1g.sampling.inferred.encoder import EncodedInputs
from z1g.sampling.inferred.one_step import OneStepCodes
from z1g.sampling.inferred.probe import NoisedCodes

KINDS: tuple[type[InferredCodes], ...] = (
    TrueCodes,
    SampledCodes,
    EncodedInputs,
    OneStepCodes,
    NoisedCodes,
)
"""What `kind:` of a InferredCodes may name."""

__all__ = [
    "KINDS",
    "EncodedInputs",
    "InferredCodes",
    "NoisedCodes",
    "Objects",
    "OneStepCodes",
    "SampledCodes",
    "TrueCodes",
]
