"""Interface of renderers: a command that is given objects one after another, and its settings."""

from abc import abstractmethod
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from z1g.core.slots import MAX_COUNT, OneOf, Runtime, Slot
from z1g.meshes.lighting import Lighting
from z1g.meshes.lighting.uniform import Uniform

KEY = "data.renderer"


class Renderer(Slot):
    """Renders meshes in processes of its own, each of which renders one object after another."""

    program: ClassVar[str]
    """Name in messages."""
    advice: ClassVar[str]
    """What to do if it does not start."""

    resolution: int = Field(512, ge=16, le=4096, description="width and height of the images, pixels")
    lighting: Annotated[Lighting, OneOf()] = Uniform()
    normals: bool = Field(False, description="also render surface normals of the six input views")
    processes: Annotated[int | None, Runtime()] = Field(
        None,
        ge=1,
        le=4096,
        description="processes per job; null: about one per core, fewer for large images or on a GPU",
    )
    restart_after: Annotated[int, Runtime()] = Field(
        500, ge=1, le=MAX_COUNT, description="number of objects after which a process is replaced by a new one"
    )
    restart_above_mb: Annotated[int | None, Runtime()] = Field(
        None,
        ge=1,
        le=MAX_COUNT,
        description="a process that uses more memory than this after an object is replaced, MiB; null: half of "
        "memory_mb",
    )
    memory_mb: Annotated[int | None, Runtime()] = Field(
        None, ge=1, le=MAX_COUNT, description="memory limit of one process, MiB; null: its share of the job's memory"
    )
    timeout_s: Annotated[float, Runtime()] = Field(
        600.0, gt=0, le=1e7, description="time limit of one object in seconds; slower objects are quarantined"
    )

    @abstractmethod
    def command(self) -> list[str]:
        """The command of a process. Raises UserError if it is not available here."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Settings of the command besides those of all renderers. Raises UserError if the lighting cannot be used."""

    @abstractmethod
    def cameras(self, c2w: NDArray[np.float64]) -> list[Any]:
        """Poses [V][4][4] in the command's convention; c2w [V,4,4] is in the y-up world, with OpenCV axes."""

    @abstractmethod
    def threads_each(self, views: int) -> int | None:
        """Number of cores for a process that renders `views` images an object; None: one process for the whole job."""
