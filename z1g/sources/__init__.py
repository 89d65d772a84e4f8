"""Data sources behind one contract: list the objects, then turn a chunk of them into rendered objects."""

from z1g.sources.base import DataSource, Ingested
from z1g.sources.g_objaverse import GObjaverse
from z1g.sources.meshes import Meshes
from z1g.sources.original import Original

KINDS: tuple[type[DataSource], ...] = (
    GObjaverse,
    Meshes,
    Original,
)
"""What `kind:` of a DataSource may name."""

__all__ = ["KINDS", "DataSource", "GObjaverse", "Ingested", "Meshes", "Original"]
