"""Interface of data sources: list the objects, then convert a chunk of them to rendered objects."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from z1g.core.slots import MAX_COUNT, Runtime, Slot
from z1g.data.manifest import Manifest, ObjectEntry, SplitOptions
from z1g.data.shards import BrokenObject, EncodedObject, Rejected, RenderedObject
from z1g.geometry.camera import CameraOptions

CHUNK_SIZE, MAX_CHUNKS = 64, 300
"""Planning, the scheduler and SLURM's queue slow down with the number of jobs, so large data sets have large chunks."""


@dataclass(frozen=True)
class Ingested:
    """The outcome of an object, and seconds by part (if the source measures them)."""

    outcome: RenderedObject | EncodedObject | Rejected
    seconds: Mapping[str, float] = field(default_factory=dict)


def read_each(objects: Sequence[ObjectEntry], read: Callable[[ObjectEntry], RenderedObject]) -> Iterator[Ingested]:
    """Outcomes of objects whose renders exist; one that `read` finds broken does not stop the others."""
    for entry in objects:
        try:
            yield Ingested(read(entry))
        except BrokenObject as error:
            yield Ingested(Rejected(entry.id, str(error)))


class DataSource(Slot):
    """Source of the objects."""

    chunk_size: int | None = Field(
        None,
        ge=1,
        le=MAX_COUNT,
        description=f"objects per job and per shard; null: {CHUNK_SIZE}, more if the data set would have over "
        f"{MAX_CHUNKS} chunks",
    )
    split: SplitOptions = SplitOptions()
    category_power: float = Field(
        1.0,
        ge=0,
        le=1,
        description="a category of n objects gets a share of the training samples proportional to n to this power; 1: "
        "all objects are seen equally often, 0: all categories",
    )
    compact: bool = Field(
        False,
        description="images as lossless WebP instead of PNG, and depth compressed: about half of the bytes, slower to "
        "write and to read",
    )
    max_quarantined: Annotated[float, Runtime()] = Field(
        0.2, ge=0, le=1, description="training does not start if a larger fraction of the objects failed"
    )

    @abstractmethod
    def list_objects(self) -> list[ObjectEntry]:
        """All objects in a fixed order. Raises UserError if there are none."""

    @abstractmethod
    def ingest(
        self, objects: Sequence[ObjectEntry], camera: CameraOptions, scratch: Path, threads: int
    ) -> Iterator[Ingested]:
        """Yield one result for each object, in order. `scratch` is an empty folder that is deleted afterwards.

        Views are in the order of `camera.poses(int_hash(id))`. `threads` is the number of the job's cores; it must not
        change the result.
        """

    def manifest(self) -> Manifest:
        """The static list of objects, divided into chunks."""
        objects = tuple(self.list_objects())
        return Manifest(objects, self.chunk_size_for(len(objects)))

    def chunk_size_for(self, n: int) -> int:
        """Number of objects per job in a data set of `n` objects."""
        return self.chunk_size or max(CHUNK_SIZE, -(-n // MAX_CHUNKS))
