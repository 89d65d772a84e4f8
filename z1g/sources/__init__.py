"""Interface of data sources: list the objects, then convert a chunk of them to rendered objects."""

from z1g.sources.base import DataSource, Ingested
from z1g.sources.evaluation_set import EvaluationSet
from z1g.sources.g_objaverse import GObjaverse
from z1g.sources.meshes import Meshes
from z1g.sources.original import Original

KINDS: tuple[type[DataSource], ...] = (
    EvaluationSet,
    GObjaverse,
    Meshes,
    Original,
)
"""Values of `kind:` of a DataSource."""

__all__ = ["KINDS", "DataSource", "EvaluationSet", "GObjaverse", "Ingested", "Meshes", "Original"]
