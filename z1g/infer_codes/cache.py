"""Codes as stage `codes` has them."""

from typing import TYPE_CHECKING, Literal

from z1g.infer_codes import InferredCodes, Objects

if TYPE_CHECKING:
    from torch import Tensor

    from z1g.method import ImageToSplats


class TrueCodes(InferredCodes):
    """The object's true code, from stage `codes`: what a perfect stage 2 would sample."""

    kind: Literal["cache"] = "cache"

    def codes(self, method: "ImageToSplats", objects: Objects) -> "Tensor":
        return objects.true
