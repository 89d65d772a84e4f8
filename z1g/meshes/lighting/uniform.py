"""The same light from everywhere."""

from typing import Literal

from z1g.meshes.lighting.base import Light, Lighting


class Uniform(Lighting):
    """White from everywhere: a surface shows its own color."""

    kind: Literal["uniform"] = "uniform"

    def light(self) -> Light:
        return Light(strength=1.0)
