"""How Blender draws the objects."""

from typing import Annotated, Literal

from pydantic import Field

from z1g.config.slot import Runtime, Section


class BlenderOptions(Section):
    """How Blender draws the objects."""

    resolution: int = Field(512, ge=16, le=4096, description="side of the square pictures, pixels")
    samples: int = Field(32, ge=1, description="Cycles samples a pixel; fewer are faster and noisier")
    lighting: Literal["uniform", "three_point"] = Field(
        "uniform", description="uniform: white from everywhere, stable colours; three_point: key, fill and rim suns"
    )
    timeout_s: Annotated[float, Runtime()] = Field(
        600.0, gt=0, description="an object that takes Blender longer than this many seconds is quarantined"
    )
    python: Annotated[str | None, Runtime()] = Field(
        None, description="a Python that can import bpy, or a Blender executable; null looks for one"
    )
