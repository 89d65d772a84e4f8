"""What lights the objects: one family of slots; a new kind is one new file that says which of these lamps it hangs."""

from z1g.meshes.lighting.base import Light, Lighting, Panorama, Sun
from z1g.meshes.lighting.hdri import Hdri
from z1g.meshes.lighting.three_point import ThreePoint
from z1g.meshes.lighting.uniform import Uniform

KINDS: tuple[type[Lighting], ...] = (
    Hdri,
    ThreePoint,
    Uniform,
)
"""What `kind:` of a Lighting may name."""

__all__ = ["KINDS", "Hdri", "Light", "Lighting", "Panorama", "Sun", "ThreePoint", "Uniform"]
