"""Codes from stage `codes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from z1g.sampling.inferred.base import InferredCodes, Objects

if TYPE_CHECKING:
    from torch import Tensor

    from z1g.sampling.inferred.base import TrainedMethod


class TrueCodes(InferredCodes):
    """The object's true code from stage `codes`, which a perfect stage 2 would sample."""

    kind: Literal["cache"] = "cache"

    def codes(self, method: TrainedMethod, objects: Objects) -> Tensor:
        return objects.true
