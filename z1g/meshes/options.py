"""Options of rendering with Blender."""

from typing import Annotated, Literal

from pydantic import Field

from z1g.core.errors import UserError
from z1g.core.needs import Missing
from z1g.core.slots import MAX_COUNT, OneOf, Runtime, Section
from z1g.meshes.executable import CONFIG_KEY, find_blender
from z1g.meshes.lighting import Lighting
from z1g.meshes.lighting.uniform import Uniform


class BlenderOptions(Section):
    """Options of rendering with Blender."""

    resolution: int = Field(512, ge=16, le=4096, description="width and height of the images, pixels")
    samples: int = Field(32, ge=1, le=65_536, description="samples per pixel; fewer are faster and noisier")
    engine: Literal["cycles", "eevee"] = Field(
        "cycles", description="cycles: path tracing; eevee: rasterization, needs OpenGL or Vulkan even without a screen"
    )
    lighting: Annotated[Lighting, OneOf()] = Uniform()
    normals: bool = Field(False, description="also render surface normals of the six input views")
    device: Annotated[Literal["cpu", "gpu"], Runtime()] = Field(
        "cpu", description="device of Cycles; gpu: OptiX, CUDA, HIP, Metal or oneAPI, an error if there is none"
    )
    processes: Annotated[int | None, Runtime()] = Field(
        None,
        ge=1,
        le=4096,
        description="Blender processes per job; null: about one per core, fewer for large images or on a GPU",
    )
    restart_after: Annotated[int, Runtime()] = Field(
        500, ge=1, le=MAX_COUNT, description="number of objects after which a Blender process is replaced by a new one"
    )
    restart_above_mb: Annotated[int | None, Runtime()] = Field(
        None,
        ge=1,
        le=MAX_COUNT,
        description="a Blender process that uses more memory than this after an object is replaced, MiB; null: half of "
        "memory_mb",
    )
    memory_mb: Annotated[int | None, Runtime()] = Field(
        None,
        ge=1,
        le=MAX_COUNT,
        description="memory limit of one Blender process, MiB; null: its share of the job's memory",
    )
    timeout_s: Annotated[float, Runtime()] = Field(
        600.0, gt=0, le=1e7, description="time limit of one object in seconds; slower objects are quarantined"
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
