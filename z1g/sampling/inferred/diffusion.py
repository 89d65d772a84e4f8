"""Codes sampled from the picture: the method."""

from typing import TYPE_CHECKING, Literal

from z1g.sampling.inferred.base import InferredCodes, Objects

if TYPE_CHECKING:
    from torch import Tensor

    from z1g.inference.method import ImageToSplats


class SampledCodes(InferredCodes):
    """Sampled from the condition picture, as `infer.sampler` says: the method."""

    kind: Literal["diffusion"] = "diffusion"

    def codes(self, method: "ImageToSplats", objects: Objects) -> "Tensor":
        return method.codes(objects.pictures, objects.seeds)
