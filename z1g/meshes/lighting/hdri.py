"""Lighting by an environment image."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from z1g.core.errors import UserError
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
    strength: float = Field(1.0, gt=0, description="factor on the panorama's light")
    rotation_deg: float = Field(
        0.0,
        description="rotation of the panorama about the vertical axis; at 0 its center is behind the condition view's "
        "camera",
    )

    def light(self) -> Light:
        path = Path(self.file)
        if not path.is_file():
            raise UserError(f"data.blender.lighting.file: {path} is not a file (current folder: {Path.cwd()})")
        if path.suffix.lower() not in FORMATS:
            raise UserError(f"data.blender.lighting.file: {path} is not one of {', '.join(FORMATS)}")
        return Light(self.strength, Panorama(str(path.absolute()), self.rotation_deg))
