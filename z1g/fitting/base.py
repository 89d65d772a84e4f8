"""Fitting splatter images to the renders of one object; the first guess is a slot."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from z1g.core.slots import Slot

if TYPE_CHECKING:
    import torch

    from z1g.data.scenes import Scene


class FitStart(Slot):
    """The first guess."""

    @abstractmethod
    def splats(self, scene: Scene, views: Sequence[int], size: int) -> torch.Tensor:
        """Activated splatter images [6,14,S,S] to start from, made from nothing but `views` (the inputs among them).

        Raises UserError where the scene lacks what it needs.
        """
