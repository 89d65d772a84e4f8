"""Where the free views stand, after the condition and the six inputs: one family of slots."""

from z1g.geometry.views.base import Angles, FreeViews, shuffled
from z1g.geometry.views.g_objaverse import GObjaverseViews
from z1g.geometry.views.original import OriginalViews
from z1g.geometry.views.random_sphere import RandomSphere

KINDS: tuple[type[FreeViews], ...] = (
    GObjaverseViews,
    OriginalViews,
    RandomSphere,
)
"""What `kind:` of a FreeViews may name."""

__all__ = ["KINDS", "Angles", "FreeViews", "GObjaverseViews", "OriginalViews", "RandomSphere", "shuffled"]
