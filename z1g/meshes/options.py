"""How Blender draws the objects."""

from typing import Annotated, Literal

from pydantic import Field

from z1g.core.errors import UserError
from z1g.core.needs import Missing
from z1g.core.slots import OneOf, Runtime, Section
from z1g.meshes.executable import CONFIG_KEY, find_blender
from z1g.meshes.lighting import Lighting
from z1g.meshes.lighting.uniform import Uniform


class BlenderOptions(Section):
    """How Blender draws the objects."""

    resolution: int = Field(512, ge=16, le=4096, description="side of the square images, pixels")
    samples: int = Field(32, ge=1, description="samples a pixel; fewer are faster and noisier")
    engine: Literal["cycles", "eevee"] = Field(
        "cycles", description="cycles: path tracing; eevee: rasterization, needs OpenGL or Vulkan even without a screen"
    )
    lighting: Annotated[Lighting, OneOf()] = Uniform()
    normals: bool = Field(False, description="also render surface normals of the six inputs")
    device: Annotated[Literal["cpu", "gpu"], Runtime()] = Field(
        "cpu", description="what Cycles runs on; gpu: OptiX, CUDA, HIP, Metal or oneAPI, an error where there is none"
    )
    processes: Annotated[int | None, Runtime()] = Field(
        None, ge=1, description="Blender processes a job; null: about one a core, fewer for large images or on a GPU"
    )
    restart_after: Annotated[int, Runtime()] = Field(
        500, ge=1, description="objects that one Blender process draws before a new one takes its place"
    )
    restart_above_mb: Annotated[int | None, Runtime()] = Field(
        None, ge=1, description="so does one that holds more memory after an object, MiB; null: half of memory_mb"
    )
    memory_mb: Annotated[int | None, Runtime()] = Field(
        None, ge=1, description="what one Blender process may allocate, MiB; null: its part of the job's memory"
    )
    timeout_s: Annotated[float, Runtime()] = Field(
        600.0, gt=0, description="an object that takes Blender longer than this many seconds is quarantined"
    )
    python: Annotated[str | None, Runtime()] = Field(
        None, description="a Python that can import bpy, or a Blender executable; null looks for one"
    )

    def check(self) -> None:
        try:
            find_blender(self.python)
        except UserError as error:
            # Where none is named, only ingest needs one, which comes first; objects that are rendered need none.
            named = self.python is not None
            raise Missing("python", str(error).removeprefix(f"{CONFIG_KEY}: "), fatal=named) from error
