"""Where the codes of inference come from, as slots: the method itself, and what tells its parts apart."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    from torch import Tensor

    from z1g.inference.method import ImageToSplats


@dataclass(frozen=True)
class Objects:
    """A batch. images: conditions [B,3,H,W] in 0..1. true: their codes [B,C,h,w] from stage `codes`.

    sheets gives their input sheets [B,3,3H,2W]. seeds: one an object.
    """

    images: Tensor
    seeds: list[int]
    true: Tensor
    sheets: Callable[[], Tensor]


class InferredCodes(Slot):
    """Gives each object the code that is decoded."""

    kind: str

    @abstractmethod
    def codes(self, method: ImageToSplats, objects: Objects) -> Tensor:
        """Codes [B,C,h,w] in the decoder's units, on the method's device."""
