"""Slot family of the free views, which follow the condition and the six inputs."""

from abc import abstractmethod
from typing import Annotated

import numpy as np
from pydantic import Field

from z1g.core.slots import Slot

Angles = list[tuple[float, float]]
"""Elevation and azimuth in degrees; the condition's azimuth is 0."""
Elevation = Annotated[float, Field(ge=-90, le=90)]
"""Option: degrees above the horizon."""


class FreeViews(Slot):
    """Poses of the free views. Training, validation and test views are taken in this order."""

    @property
    def available(self) -> int | None:
        """Number of views of the protocol; None if it is unlimited."""
        return None

    @abstractmethod
    def angles(self, n: int, draw: np.random.Generator) -> Angles:
        """The first `n` views of one object, drawn from the object's generator."""


def shuffled(angles: Angles, n: int, draw: np.random.Generator) -> Angles:
    """`n` of the views in random order, so that the test views cover all rings."""
    return [angles[i] for i in draw.permutation(len(angles))[:n]]
