"""Fitting splatter images to the renders of an object; the initialization is a slot."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    import torch

    from z1g.data.scenes import Scene


class FitStart(Slot):
    """Initialization of the fit."""

    @abstractmethod
    def splats(self, scene: Scene, views: Sequence[int], size: int) -> torch.Tensor:
        """Return initial activated splatter images [6,14,S,S], computed only from `views` (which include the inputs).

        Raises UserError if the scene lacks required data.
        """

    @property
    def unit_quaternions(self) -> bool:
        """Whether quaternions are normalized; if not, the fit has to optimize all of them."""
        return True
