"""Codes sampled from the condition image: the method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from z1g.sampling.inferred.base import InferredCodes, Objects

if TYPE_CHECKING:
    from torch import Tensor

    from z1g.sampling.inferred.base import TrainedMethod


class SampledCodes(InferredCodes):
    """Codes sampled from the condition image by `infer.sampler`: the method."""

    kind: Literal["diffusion"] = "diffusion"

    def codes(self, method: TrainedMethod, objects: Objects) -> Tensor:
        return method.codes(objects.images, objects.seeds)
