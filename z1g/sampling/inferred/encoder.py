"""Codes from the six true inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from z1g.sampling.inferred.base import InferredCodes, Objects

if TYPE_CHECKING:
    from torch import Tensor

    from z1g.inference.method import ImageToSplats


class EncodedInputs(InferredCodes):
    """The encoder's posterior mean of the object's six true inputs."""

    kind: Literal["encoder"] = "encoder"

    def codes(self, method: ImageToSplats, objects: Objects) -> Tensor:
        return method.stage1.encoder.sheet_code(objects.sheets().to(objects.true.device), None)
