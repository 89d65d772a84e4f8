"""Free views drawn from a band of the sphere."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from z1g.geometry.views.base import Angles, FreeViews


class RandomSphere(FreeViews):
    """Uniform on the sphere between two elevations, drawn for each object."""

    kind: Literal["random_sphere"] = "random_sphere"
    elevation_deg: tuple[float, float] = Field((-30.0, 60.0), description="lowest and highest elevation, degrees")

    @model_validator(mode="after")
    def _ordered(self) -> RandomSphere:
        low, high = self.elevation_deg
        if not -90 <= low <= high <= 90:
            raise ValueError(f"elevation_deg {low:g} to {high:g} must rise and stay within -90 and 90")
        return self

    def angles(self, n: int, draw: np.random.Generator) -> Angles:
        sines = np.sin(np.radians(self.elevation_deg))
        return [(math.degrees(math.asin(draw.uniform(*sines))), draw.uniform(0, 360)) for _ in range(n)]
