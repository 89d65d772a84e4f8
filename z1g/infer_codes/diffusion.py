"""Codes sampled from the picture: the method."""

from typing import TYPE_CHECKING, Literal

from z1g.infer_codes import InferredCodes, Objects

if TYPE_CHECKING:
    from torch import Tensor

    from z1g.method import ImageToSplats


class SampledCodes(InferredCodes):
    """Sampled from the condition picture, as `infer.sampler` says: the method."""

    kind: Literal["diffusion"] = "diffusion"

    def codes(self, method: "ImageToSplats", objects: Objects) -> "Tensor":
        return method.codes(objects.pictures, objects.seeds)
