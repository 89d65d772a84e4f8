"""As many free views as the original's renders have."""

from typing import Literal

import numpy as np

from z1g.geometry.views.base import Angles, FreeViews


class OriginalViews(FreeViews):
    """The original's 56 views: after condition and inputs 49, uniform on the whole sphere.

    Its renders name each view's angles but not how they were drawn; the distribution is this project's assumption.
    """

    kind: Literal["original"] = "original"

    @property
    def most(self) -> int:
        return 49

    def angles(self, n: int, draw: np.random.Generator) -> Angles:
        return [(float(np.degrees(np.arcsin(draw.uniform(-1, 1)))), draw.uniform(0, 360)) for _ in range(n)]
