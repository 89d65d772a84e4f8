"""The programs that draw surfaces. Each alpha mode has its own, which do no more than it needs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from z1g.meshes.raster import shaders
from z1g.meshes.raster.occlusion import Occlusion
from z1g.meshes.raster.scene import AlphaMode, Material

MOST_SUNS = 4


@dataclass(frozen=True)
class Sun:
    """A distant light: direction towards it [3] in the y-up world, and irradiance in W/m²."""

    direction: tuple[float, float, float]
    strength: float


class Programs:
    """Programs for surfaces of one alpha mode: their color, their geometry and, for `Occlusion`, their depth.

    ambient, suns: as of `Rasterizer`. occlusion: what blocks the ambient light, None if nothing does.
    """

    def __init__(
        self, context: Any, alpha_mode: AlphaMode, ambient: float, suns: Sequence[Sun], occlusion: Occlusion | None
    ) -> None:
        fragment = shaders.color_fragment(alpha_mode, lit=bool(suns) or occlusion is not None)
        self.color = context.program(shaders.SURFACE_VERTEX, fragment)
        self.geometry = context.program(shaders.SURFACE_VERTEX, shaders.geometry_fragment(alpha_mode))
        self.occluder = None
        padded = [*suns, *[Sun((0.0, 1.0, 0.0), 0.0)] * (MOST_SUNS - len(suns))]
        put(
            self.color, ambient=ambient, suns=len(suns), sun_direction=[sun.direction for sun in padded],
            sun_strength=[sun.strength / math.pi for sun in padded], nearer=1, solid=2, directions=0,
        )  # fmt: skip
        if occlusion is not None:
            self.occluder = context.program(shaders.OCCLUDER_VERTEX, shaders.geometry_fragment(alpha_mode))
            put(self.color, **occlusion.uniforms)


def put(program: Any, **values: Any) -> None:
    """Set uniforms of a program. Drivers leave out those that it does not use."""
    for name, value in values.items():
        if (uniform := program.get(name, None)) is not None:
            uniform.value = value


def put_material(program: Any, material: Material) -> None:
    """Set the material of what is drawn next."""
    wraps = ("repeat", "repeat") if material.texture is None else material.texture.wrap
    mirrored = tuple(float(wrap == "mirror") for wrap in wraps)
    put(program, factor=material.factor, mirrored=mirrored, cutoff=material.cutoff)
