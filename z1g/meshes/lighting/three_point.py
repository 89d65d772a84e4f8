"""Three-point lighting."""

from typing import Literal

from z1g.meshes.lighting.base import Light, Lighting, Sun

KEY, FILL, RIM = Sun(3.0, 40.0, 35.0), Sun(1.2, 15.0, -50.0), Sun(2.0, 45.0, 170.0)


class ThreePoint(Lighting):
    """Key, fill and rim suns with a dim white background, fixed to the object."""

    kind: Literal["three_point"] = "three_point"

    def light(self) -> Light:
        return Light(strength=0.25, suns=(KEY, FILL, RIM))
