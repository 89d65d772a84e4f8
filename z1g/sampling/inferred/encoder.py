"""Codes from the six true input views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from z1g.sampling.inferred.base import InferredCodes, Objects

if TYPE_CHECKING:
    from torch import Tensor

    from z1g.sampling.inferred.base import TrainedMethod


class EncodedInputs(InferredCodes):
    """The encoder's posterior mean of the object's six true input views."""

    kind: Literal["encoder"] = "encoder"

    def codes(self, method: TrainedMethod, objects: Objects) -> Tensor:
        return method.encode(objects.inputs().to(objects.true.device))
