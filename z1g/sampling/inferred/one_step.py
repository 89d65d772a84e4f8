"""One-step predictions of the code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.sampling.inferred.base import InferredCodes, Objects

if TYPE_CHECKING:
    from torch import Tensor

    from z1g.sampling.inferred.base import TrainedMethod


class OneStepCodes(InferredCodes):
    """The true code, noised to a timestep and predicted in one step. Measures the UNet at that timestep."""

    kind: Literal["one_step"] = "one_step"
    timestep: int = Field(
        500, ge=0, le=999, description="timestep of the noise on the true code; 999: almost pure noise"
    )

    def codes(self, method: TrainedMethod, objects: Objects) -> Tensor:
        from z1g.sampling.sample import predict_once

        condition, true = method.condition(objects.images), method.from_units(objects.true)
        predicted = predict_once(method.predict, condition, true, self.timestep, method.options, objects.seeds)
        return method.to_units(predicted)
