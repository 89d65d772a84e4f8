"""Lighting of the objects, a family of slots. A new kind is a new file that returns a `Light`."""

from abc import abstractmethod
from dataclasses import dataclass

from z1g.core.slots import Slot


@dataclass(frozen=True)
class Sun:
    """Parallel light: strength in W/m2, elevation and azimuth in degrees; azimuth 0 is the condition view's."""

    strength: float
    elevation_deg: float
    azimuth_deg: float


@dataclass(frozen=True)
class Panorama:
    """An equirectangular environment image; at rotation 0 its center is behind the condition view's camera."""

    file: str
    rotation_deg: float


@dataclass(frozen=True)
class Light:
    """All light on an object: a uniform white background or a panorama, times `strength`, and suns."""

    strength: float
    panorama: Panorama | None = None
    suns: tuple[Sun, ...] = ()


class Lighting(Slot):
    """Lighting of the objects."""

    @abstractmethod
    def light(self) -> Light:
        """Return the lights. Raises UserError if a file that they need is missing."""
