"""Rendering with Blender: path-traced light, all formats."""

import math
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from z1g.core.errors import UserError
from z1g.core.needs import Missing
from z1g.core.slots import Runtime
from z1g.geometry.camera import to_blender
from z1g.meshes.executable import CONFIG_KEY, ENVIRONMENT_VARIABLE, SUITABLE, find_blender
from z1g.meshes.renderers.base import Renderer

SAMPLES_PER_S = 3e6
"""Approximate rendering speed of one core; only the distribution of cores depends on it."""
OBJECT_S = 60.0
"""Target time of one object. One thread per process has the highest throughput, but objects have a time limit."""


class Blender(Renderer):
    """Renders with Blender: light and shadows, all materials and formats."""

    program: ClassVar[str] = "Blender"
    advice: ClassVar[str] = f"Set {CONFIG_KEY} or {ENVIRONMENT_VARIABLE} to {SUITABLE}"

    kind: Literal["blender"] = "blender"
    samples: int = Field(32, ge=1, le=65_536, description="samples per pixel; fewer are faster and noisier")
    engine: Literal["cycles", "eevee"] = Field(
        "cycles", description="cycles: path tracing; eevee: rasterization, needs OpenGL or Vulkan even without a screen"
    )
    device: Annotated[Literal["cpu", "gpu"], Runtime()] = Field(
        "cpu", description="device of Cycles; gpu: OptiX, CUDA, HIP, Metal or oneAPI, an error if there is none"
    )
    python: Annotated[str | None, Runtime()] = Field(
        None, description="a Python that can import bpy, or a Blender executable; null: search for one"
    )

    def check(self) -> None:
        try:
            find_blender(self.python)
        except UserError as error:
            # Where none is named, only ingest needs one, which comes first; objects that are rendered need none.
            named = self.python is not None
            raise Missing("python", str(error).removeprefix(f"{CONFIG_KEY}: "), fatal=named) from error

    def command(self) -> list[str]:
        return find_blender(self.python)

    def settings(self) -> dict[str, Any]:
        lighting = asdict(self.lighting.light())
        return {"samples": self.samples, "engine": self.engine, "device": self.device, "lighting": lighting}

    def cameras(self, c2w: NDArray[np.float64]) -> list[Any]:
        poses: list[Any] = to_blender(c2w).tolist()
        return poses

    def threads_each(self, views: int) -> int | None:
        if self.device == "gpu" or self.engine == "eevee":
            return None
        return math.ceil(self.resolution**2 * self.samples * views / SAMPLES_PER_S / OBJECT_S)
