"""What lights the objects: one family of slots; a new kind is one new file that says which of these lamps it hangs."""

from abc import abstractmethod
from dataclasses import dataclass

from z1g.core.slots import Slot


@dataclass(frozen=True)
class Sun:
    """Parallel light: strength in W/m2, elevation and azimuth in degrees, azimuth 0 being the condition view's."""

    strength: float
    elevation_deg: float
    azimuth_deg: float


@dataclass(frozen=True)
class Panorama:
    """An equirectangular image all around; at rotation 0 its middle lies behind the condition's camera."""

    file: str
    rotation_deg: float


@dataclass(frozen=True)
class Light:
    """All that lights an object: a background of even white or a panorama, times `strength`, and suns."""

    strength: float
    panorama: Panorama | None = None
    suns: tuple[Sun, ...] = ()


class Lighting(Slot):
    """What lights the objects."""

    @abstractmethod
    def light(self) -> Light:
        """The lamps. Raises UserError where a file that they need is missing."""
