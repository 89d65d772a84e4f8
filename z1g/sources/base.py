"""Data sources behind one contract: list the objects, then turn a chunk of them into rendered objects."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from z1g.core.slots import Runtime, Slot
from z1g.data.manifest import Manifest, ObjectEntry, SplitOptions
from z1g.data.shards import Rejected, RenderedObject
from z1g.geometry.camera import CameraOptions

CHUNK_SIZE, MOST_CHUNKS = 64, 300
"""Planning, the scheduler and SLURM's queue all slow down with the number of jobs, so large sets get large chunks."""


@dataclass(frozen=True)
class Ingested:
    """What became of an object, and how many seconds each part of it took (as far as the source tells)."""

    outcome: RenderedObject | Rejected
    seconds: Mapping[str, float] = field(default_factory=dict)


class DataSource(Slot):
    """Where the objects come from."""

    chunk_size: int | None = Field(
        None,
        ge=1,
        description=f"objects a job, also objects a shard; null: {CHUNK_SIZE}, more where a set would have over "
        f"{MOST_CHUNKS} chunks",
    )
    split: SplitOptions = SplitOptions()
    max_quarantined: Annotated[float, Runtime()] = Field(
        0.2, ge=0, le=1, description="training refuses to start when a larger share of the objects failed"
    )

    @abstractmethod
    def list_objects(self) -> list[ObjectEntry]:
        """All objects in a fixed order. Raises UserError where there are none."""

    @abstractmethod
    def ingest(
        self, objects: Sequence[ObjectEntry], camera: CameraOptions, scratch: Path, threads: int
    ) -> Iterator[Ingested]:
        """Yield one result for each object, in order. `scratch` is an empty folder that is deleted afterwards.

        Views are numbered as `camera.poses(int_hash(id))` has them. `threads` is how many cores the job owns; it
        must not change the result.
        """

    def manifest(self) -> Manifest:
        """The static list of objects with its chunking."""
        objects = tuple(self.list_objects())
        return Manifest(objects, self.chunk_size_for(len(objects)))

    def chunk_size_for(self, n: int) -> int:
        """Objects a job in a set of `n`."""
        return self.chunk_size or max(CHUNK_SIZE, -(-n // MOST_CHUNKS))
