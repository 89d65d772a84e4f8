"""The UNet's prediction of the code from one timestep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.sampling.inferred.base import InferredCodes, Objects

if TYPE_CHECKING:
    from torch import Tensor

    from z1g.sampling.inferred.base import TrainedMethod


class OneStepCodes(InferredCodes):
    """The true code noised to a timestep and predicted back at once: how much the UNet knows there."""

    kind: Literal["one_step"] = "one_step"
    timestep: int = Field(500, ge=0, le=999, description="how much noise the true code gets; 999: all but nothing else")

    def codes(self, method: TrainedMethod, objects: Objects) -> Tensor:
        from z1g.sampling.sample import predict_once

        condition, true = method.condition(objects.images), method.from_units(objects.true)
        predicted = predict_once(method.predict, condition, true, self.timestep, method.options, objects.seeds)
        return method.to_units(predicted)
