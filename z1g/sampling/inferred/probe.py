"""True codes with noise, to measure the sensitivity of the decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.sampling.inferred.base import InferredCodes, Objects

if TYPE_CHECKING:
    from torch import Tensor

    from z1g.sampling.inferred.base import TrainedMethod


class NoisedCodes(InferredCodes):
    """The true code plus noise, as in the original's probe of the decoder's Lipschitz constant."""

    kind: Literal["probe"] = "probe"
    coefficient: float = Field(
        0.1, ge=0, le=1000, description="standard deviation of the noise, in the decoder's units"
    )

    def codes(self, method: TrainedMethod, objects: Objects) -> Tensor:
        from z1g.sampling.sample import object_noise

        noise = object_noise(method.options, objects.seeds, method.shape)
        return objects.true + self.coefficient * noise.to(objects.true.device)
