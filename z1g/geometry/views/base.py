"""Where the free views stand, after the condition and the six inputs: one family of slots."""

from abc import abstractmethod

import numpy as np

from z1g.core.slots import Slot

Angles = list[tuple[float, float]]
"""Elevation and azimuth in degrees, azimuth 0 being the condition's."""


class FreeViews(Slot):
    """Where the free views stand. Training, validation and test views are taken in the order given."""

    @property
    def most(self) -> int | None:
        """How many views the protocol has; None where it has any number."""
        return None

    @abstractmethod
    def angles(self, n: int, draw: np.random.Generator) -> Angles:
        """The first `n` views of one object, drawn from its own generator."""


def shuffled(angles: Angles, n: int, draw: np.random.Generator) -> Angles:
    """`n` of the views in random order, so that test views are not one ring of them."""
    return [angles[i] for i in draw.permutation(len(angles))[:n]]
