"""Lighting by an environment image."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from z1g.core.errors import UserError
from z1g.core.needs import Missing, require_file
from z1g.meshes.lighting.base import Light, Lighting, Panorama

FORMATS = (".hdr", ".exr")


class Hdri(Lighting):
    """A panorama lights the objects and is not visible itself."""

    kind: Literal["hdri"] = "hdri"
    file: str = Field(
        "environment.exr",
        description="equirectangular .hdr or .exr file, relative to the current folder; identified by its path, not "
        "its content",
    )
    strength: float = Field(1.0, gt=0, le=1e6, description="factor on the panorama's light")
    rotation_deg: float = Field(
        0.0,
        ge=-3600,
        le=3600,
        description="rotation of the panorama about the vertical axis; at 0 its center is behind the condition view's "
        "camera",
    )

    def check(self) -> None:
        require_file("file", self.file, f"give an equirectangular image, {' or '.join(FORMATS)}")
        if Path(self.file).suffix.lower() not in FORMATS:
            raise Missing("file", f"{self.file} is not one of {', '.join(FORMATS)}")

    def light(self) -> Light:
        try:
            self.check()
        except Missing as error:
            raise UserError(f"data.renderer.lighting.{error}") from error
        return Light(self.strength, Panorama(str(Path(self.file).absolute()), self.rotation_deg))
