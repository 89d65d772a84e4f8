"""Uniform lighting."""

from typing import Literal

from z1g.meshes.lighting.base import Light, Lighting


class Uniform(Lighting):
    """White light from all directions: surfaces show their base color."""

    kind: Literal["uniform"] = "uniform"

    def light(self) -> Light:
        return Light(strength=1.0)
