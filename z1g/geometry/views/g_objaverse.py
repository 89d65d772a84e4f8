"""Free views on the rings of G-buffer Objaverse."""

from typing import Literal

import numpy as np

from z1g.geometry.views.base import Angles, FreeViews, shuffled

UPPER, MIDDLE = (5.0, 30.0), (-5.0, 5.0)


class GObjaverseViews(FreeViews):
    """38 views: a ring of 24 at 5 to 30 degrees elevation, a ring of 12 at -5 to 5, one from above, one from below.

    The elevation of a ring is drawn for each object. Source: the data set of Qiu et al., "RichDreamer", CVPR 2024.
    """

    kind: Literal["g_objaverse"] = "g_objaverse"

    @property
    def available(self) -> int:
        return 38

    def angles(self, n: int, draw: np.random.Generator) -> Angles:
        upper, middle = draw.uniform(*UPPER), draw.uniform(*MIDDLE)
        rings = [(upper, 15.0 * i) for i in range(24)] + [(middle, 30.0 * i) for i in range(12)]
        return shuffled([*rings, (90.0, 0.0), (-90.0, 0.0)], n, draw)
