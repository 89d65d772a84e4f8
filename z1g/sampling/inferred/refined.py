"""Sampled codes, refined by the condition image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from z1g.sampling.inferred.base import Objects
from z1g.sampling.inferred.diffusion import SampledCodes

if TYPE_CHECKING:
    from torch import Tensor

    from z1g.sampling.inferred.base import TrainedMethod


class RefinedCodes(SampledCodes):
    """Sampled codes, after a search near each until its render looks like the condition image, as `z1g infer --refine`.

    The search through the frozen decoder is that of DeepSDF (Park et al. 2019, section 4.2), from a sample on.
    """

    kind: Literal["refined"] = "refined"  # type: ignore[assignment]
    steps: int = Field(20, ge=1, le=10_000, description="steps of the search, each a pass of the decoder both ways")

    def codes(self, method: TrainedMethod, objects: Objects) -> Tensor:
        return objects.refined(super().codes(method, objects), self.steps)
