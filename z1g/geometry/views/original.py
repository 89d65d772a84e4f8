"""The free views of the original's renders."""

from typing import Literal

import numpy as np

from z1g.geometry.views.base import Angles, FreeViews


class OriginalViews(FreeViews):
    """The original's 56 views: condition, inputs and 49 free views, uniform on the whole sphere.

    Its renders record the angles of each view but not their distribution, which is this project's assumption.
    """

    kind: Literal["original"] = "original"

    @property
    def available(self) -> int:
        return 49

    def angles(self, n: int, draw: np.random.Generator) -> Angles:
        return [(float(np.degrees(np.arcsin(draw.uniform(-1, 1)))), draw.uniform(0, 360)) for _ in range(n)]
