"""Slot family of the free views, which follow the condition and the six inputs."""

from z1g.geometry.views.base import Angles, FreeViews, shuffled
from z1g.geometry.views.g_objaverse import GObjaverseViews
from z1g.geometry.views.original import OriginalViews
from z1g.geometry.views.random_sphere import RandomSphere

KINDS: tuple[type[FreeViews], ...] = (
    GObjaverseViews,
    OriginalViews,
    RandomSphere,
)
"""All kinds of FreeViews."""

__all__ = ["KINDS", "Angles", "FreeViews", "GObjaverseViews", "OriginalViews", "RandomSphere", "shuffled"]
