"""Lighting of the objects, a family of slots. A new kind is a new file that returns a `Light`."""

from z1g.meshes.lighting.base import Light, Lighting, Panorama, Sun
from z1g.meshes.lighting.hdri import Hdri
from z1g.meshes.lighting.three_point import ThreePoint
from z1g.meshes.lighting.uniform import Uniform

KINDS: tuple[type[Lighting], ...] = (
    Hdri,
    ThreePoint,
    Uniform,
)
"""Values of `kind:` of a Lighting."""

__all__ = ["KINDS", "Hdri", "Light", "Lighting", "Panorama", "Sun", "ThreePoint", "Uniform"]
