"""Rendering with OpenGL: the surface's own color, in milliseconds."""

import subprocess
import sys
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from z1g.core.errors import UserError
from z1g.core.needs import Missing
from z1g.core.slots import MAX_COUNT
from z1g.meshes.executable import find_blender
from z1g.meshes.lighting import Hdri, Sun
from z1g.meshes.renderers.base import KEY, Renderer
from z1g.meshes.renderers.blender import Blender

MODULE, CONTEXT = "z1g.meshes.raster.worker", "z1g.meshes.raster.context"
PROBE_S = 60.0
"""Time limit for trying OpenGL."""


@cache
def opengl_problem() -> str | None:
    """Why OpenGL without a screen does not work here, None if it does.

    It is tried in a process of its own, which a driver may crash.
    """
    try:
        tried = subprocess.run([sys.executable, "-m", CONTEXT], capture_output=True, text=True, timeout=PROBE_S)
    except subprocess.TimeoutExpired:
        return f"OpenGL without a screen (EGL) did not start within {PROBE_S:.0f} s"
    if tried.returncode == 0:
        return None
    said = tried.stdout.strip() if tried.returncode == 1 else ""
    return said or f"OpenGL without a screen (EGL) crashes here (exit code {tried.returncode})"


class Raster(Renderer):
    """Renders with OpenGL, on a GPU or on Mesa's software rasterizer, without a screen.

    Under uniform light a pixel has the surface's own color; suns shade it without shadows. Reads .obj .glb .gltf .ply
    .stl and the formats of games, .ac .md2 .g3d .pmd; Blender converts other formats once.
    """

    program: ClassVar[str] = "the rasterizer"
    advice: ClassVar[str] = f"Set {KEY} to {{kind: blender}} if this machine's OpenGL does not work"

    kind: Literal["raster"] = "raster"
    samples: int = Field(3, ge=1, le=8, description="samples per pixel along each axis")
    triangles: int = Field(
        10_000_000, ge=1, le=MAX_COUNT, description="limit of the triangles of an object; larger ones are quarantined"
    )

    ambient_occlusion: bool = Field(
        False, description="darken places to which the object itself blocks the light from all directions"
    )

    @model_validator(mode="after")
    def _light_is_possible(self) -> "Raster":
        if isinstance(self.lighting, Hdri):
            raise ValueError(f"{KEY}.lighting: kind hdri needs {KEY}: {{kind: blender}}")
        return self

    def check(self) -> None:
        problem = opengl_problem()
        if problem is None:
            return
        try:
            find_blender(None)
        except UserError as error:
            nor = "Nor is there Blender, which would render instead: `make blender`"
            raise Missing("kind", f"{problem}. {nor}") from error
        raise Missing("kind", f"{problem}. What is not rendered yet, Blender renders, with ids of its own", fatal=False)

    def by_blender(self) -> Blender:
        """Blender with the options that all renderers have."""
        return Blender(**{name: getattr(self, name) for name in Renderer.model_fields})

    def command(self) -> list[str]:
        return [sys.executable, "-m", MODULE]

    def settings(self) -> dict[str, Any]:
        light = self.lighting.light()
        suns = [[_towards(sun), sun.strength] for sun in light.suns]
        lighting = {"ambient": light.strength, "occlusion": self.ambient_occlusion, "suns": suns}
        return {"samples": self.samples, "triangles": self.triangles, "lighting": lighting}

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
