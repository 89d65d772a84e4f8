"""Rendering with OpenGL: the surface's own color, in milliseconds."""

import importlib.util
import sys
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from z1g.core.needs import Missing
from z1g.meshes.lighting import Hdri, Sun
from z1g.meshes.renderers.base import KEY, Renderer

MODULE = "z1g.meshes.raster.worker"


class Raster(Renderer):
    """Renders with OpenGL, on a GPU or on Mesa's software rasterizer, without a screen.

    Under uniform light a pixel has the surface's own color; suns shade it without shadows. Reads .obj .glb .gltf .ply
    .stl .dae, and the formats of games: .ac .md2 .g3d and .pmd.
    """

    program: ClassVar[str] = "the rasterizer"
    advice: ClassVar[str] = f"Set {KEY} to {{kind: blender}} if this machine's OpenGL does not work"

    kind: Literal["raster"] = "raster"
    samples: int = Field(3, ge=1, le=8, description="samples per pixel along each axis")

    @model_validator(mode="after")
    def _light_is_possible(self) -> "Raster":
        if isinstance(self.lighting, Hdri):
            raise ValueError(f"{KEY}.lighting: kind hdri needs {KEY}: {{kind: blender}}")
        return self

    def check(self) -> None:
        if importlib.util.find_spec("moderngl") is None:
            raise Missing("kind", "kind raster needs the package moderngl; install it, or use kind blender")

    def command(self) -> list[str]:
        return [sys.executable, "-m", MODULE]

    def settings(self) -> dict[str, Any]:
        light = self.lighting.light()
        suns = [[_towards(sun), sun.strength] for sun in light.suns]
        return {"samples": self.samples, "lighting": {"ambient": light.strength, "suns": suns}}

    def cameras(self, c2w: NDArray[np.float64]) -> list[Any]:
        poses: list[Any] = c2w.tolist()
        return poses

    def threads_each(self, views: int) -> int | None:
        return 1


def _towards(sun: Sun) -> list[float]:
    """Direction [3] from the object to a sun in the y-up world; azimuth 0 is the condition view's, +z."""
    elevation, azimuth = np.radians(sun.elevation_deg), np.radians(sun.azimuth_deg)
    level = np.cos(elevation)
    return [float(level * np.sin(azimuth)), float(np.sin(elevation)), float(level * np.cos(azimuth))]
