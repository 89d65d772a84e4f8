"""Interface of data sources: list the objects, then convert a chunk of them to rendered objects."""

from z1g.sources.base import DataSource, Ingested
from z1g.sources.g_objaverse import GObjaverse
from z1g.sources.meshes import Meshes
from z1g.sources.original import Original

KINDS: tuple[type[DataSource], ...] = (
    GObjaverse,
    Meshes,
    Original,
)
"""Values of `kind:` of a DataSource."""

__all__ = ["KINDS", "DataSource", "GObjaverse", "Ingested", "Meshes", "Original"]
